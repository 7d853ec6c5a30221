"""trust_docs: how many malformed files with names there are, for docs/trust.md."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench_docs import markdown

VECTORS: Final = Path(__file__).parents[1] / "formats" / "vectors"
KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("container/invalid/*.json",),
    "captures and queries": (
        "capture/headers-invalid.json",
        "capture/invalid.json",
        "capture/foreign.json",
        "capture/queries.json",
    ),
    "profiles and calibrations": ("profile/*invalid.json",),
    "layout maps": ("layout_map/invalid.json",),
}


def vectors_block() -> str:
    rows = []
    for kind, patterns in KINDS.items():
        paths = [path for pattern in patterns for path in sorted(VECTORS.glob(pattern))]
        count = sum(map(refused, paths))
        rows.append([kind, f"{count}", ", ".join(f"`{pattern}`" for pattern in patterns)])
    return markdown(["what", "cases", "in `formats/vectors`"], rows)


def refused(path: Path) -> int:
    """Cases of a file that must be refused."""
    cases: list[dict[str, Any]] = json.loads(path.read_text("utf-8"))["cases"]
    return sum("error" in case for case in cases)


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {"vectors": vectors_block}

"""transform_docs: tables of docs/transform.md, from results of benchmarks/transform.py and e2e.py.

Nothing is measured here. What the members of the files mean stands in benchmarks/transform.py and
benchmarks/e2e.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import e2e_docs
from bench_docs import Row, made, markdown

ROOT: Final = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import transform_tables  # noqa: E402 - found by the line above

RESULTS: Final = ROOT / "benchmarks" / "transform.json"
E2E: Final = ROOT / "benchmarks" / "transform_e2e.json"
CAPTURES: Final = {
    "smollm2-prose": "SmolLM2-135M-Instruct, Pride and Prejudice, chapter 1: 512 tokens",
    "smollm2-code": "SmolLM2-135M-Instruct, textwrap.py: 1,024 tokens",
    "qwen-prose": "Qwen2.5-Coder-1.5B-Instruct, Pride and Prejudice, chapter 1: 512 tokens",
    "qwen-code": "Qwen2.5-Coder-1.5B-Instruct, textwrap.py: 1,024 tokens",
    "minilm-prose": "all-MiniLM-L6-v2, Pride and Prejudice, chapter 1: 512 tokens",
    "minilm-code": "all-MiniLM-L6-v2, textwrap.py: 512 tokens",
}


def load() -> dict[str, Any]:
    results: dict[str, Any] = json.loads(RESULTS.read_text("utf-8"))
    return results


def captures() -> list[Row]:
    """In the order of CAPTURES."""
    found: list[Row] = load()["captures"]
    return sorted(found, key=lambda part: list(CAPTURES).index(part["capture"]))


def verdicts_block() -> str:
    """Of every capture, how small transform is where it is as good as another codec."""
    return "\n".join(
        f"### {CAPTURES[part['capture']]}\n\n{transform_tables.verdicts(part)}"
        for part in captures()
    )


def codecs_block() -> str:
    """Of every capture, all that was measured."""
    return "\n".join(
        f"### {CAPTURES[part['capture']]}\n\n{transform_tables.rows(part)}\n{made(part)}"
        for part in captures()
    )


def calibrations_block() -> str:
    return transform_tables.calibrations(captures())


def ablation_block() -> str:
    part = load()["ablation"]
    return f"{transform_tables.ablation(part)}\n{made(part)}"


def speed_block() -> str:
    part = load()["speed"]
    return f"{transform_tables.speed(part)}\n{made(part)}"


def e2e_block() -> str:
    """What a model says after it."""
    return "\n".join(e2e_section(run) for run in json.loads(E2E.read_text("utf-8"))["runs"])


def e2e_section(run: Row) -> str:
    header = ["profile", "ratio vs f16", "ratio, table in the file", "perplexity", "change",
              "standard error", "KL", "top-1"]  # fmt: skip
    rows = []
    for row in run["rows"]:
        ratio, *rest = e2e_docs.cells(row)
        inside = f"{row['embedded_ratio']:.3f}" if "embedded_ratio" in row else ""
        rows.append([f"`{row['profile']}`", ratio, inside, *rest])
    about = f"{run['model']}, {run['text_about']}. {e2e_docs.windows(run)}.\n"
    return f"{about}\n{markdown(header, rows)}\n{made(run)}"


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "transform-verdicts": verdicts_block,
    "transform-codecs": codecs_block,
    "transform-calibrations": calibrations_block,
    "transform-ablation": ablation_block,
    "transform-speed": speed_block,
    "transform-e2e": e2e_block,
}

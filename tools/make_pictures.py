"""make_pictures: the pictures of the README, from what kvq measures on the sample capture.

    python tools/make_pictures.py

    docs/pictures/demo.svg     what the tour over the sample prints
    docs/pictures/rates.svg    every built-in profile: bits per element, attention total variation
    docs/pictures/heads.svg    int4: attention total variation of each layer and query head

They are drawn anew by hand after a change of codecs: bytes of SVG are not compared by tests.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from kvq_cli.cli import charts
from kvq_cli.cli.run import run
from kvq_cli.pipeline import stats
from kvq_cli.profile import builtin_names

ROOT: Final = Path(__file__).parents[1]
SAMPLE: Final = ROOT / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"
QUERIES: Final = SAMPLE.with_suffix(".query.safetensors")
FOLDER: Final = ROOT / "docs" / "pictures"
TOUR: Final = (
    "kvq compress cache.safetensors",
    "kvq verify cache.safetensors.kvq",
    "kvq compress cache.safetensors -p int8 -o cache.kvq",
    "kvq stats cache.safetensors -p int8 -p int4 -p turboquant-3bit --queries queries.safetensors",
)
# Pictures stand on pages of either colour, so they bring a ground of their own.
COLOURS: Final = (
    "--ink:#1c2430;--paper:#fff;--line:#dde3ea;--heat:#b3261e;--c0:#2f6fb2;--c1:#d98324;--c2:#3f8f5b;"
    "--c3:#8a5aa8;--c4:#b8464e;--c5:#5f7f8f;--c6:#9a8130;--c7:#4f9aa8;background:#fff"
)
LETTERS: Final = "text{fill:#1c2430;font:11px system-ui,sans-serif}"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "demo.svg").write_text(demo(), encoding="utf-8")
    points = []
    for name in builtin_names():
        report = measured(name)
        variation = report.attention[-1]["attention_tv"]
        if variation:
            points.append((name, report.bits_per_element, variation))
    rates = charts.scatter(points, "bits per element", "attention total variation, SmolLM2-135M")
    (FOLDER / "rates.svg").write_text(alone(rates), encoding="utf-8")
    cells = {
        (row["layer"], row["head"]): row["attention_tv"]
        for row in measured("int4").attention
        if row["head"] is not None
    }
    (FOLDER / "heads.svg").write_text(alone(charts.heat(cells)), encoding="utf-8")


def measured(name: str) -> Any:
    return stats(SAMPLE, profiles=[name], queries=QUERIES)


def alone(drawing: str) -> str:
    """A drawing that is a file of its own."""
    start, rest = drawing.split(">", 1)
    return f'{start} style="{COLOURS}"><style>{LETTERS}</style>{rest}\n'


def demo() -> str:
    """The tour, as a terminal shows it."""
    console = Console(record=True, width=132, file=io.StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(SAMPLE, Path(folder) / "cache.safetensors")
        shutil.copy(QUERIES, Path(folder) / "queries.safetensors")
        kept = Path.cwd()
        os.chdir(folder)
        try:
            for line in TOUR:
                console.print(Text(f"$ {line}", style="bold"))
                console.print(Text(printed(line.split()[1:]).rstrip()))
        finally:
            os.chdir(kept)
    return console.export_svg(title="kvq", unique_id="kvq")


def printed(words: list[str]) -> str:
    into = io.StringIO()
    with contextlib.redirect_stdout(into), contextlib.redirect_stderr(into):
        if run(words):
            sys.exit(f"{words}: {into.getvalue()}")
    return into.getvalue()


if __name__ == "__main__":
    main()

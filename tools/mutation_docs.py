"""mutation_docs: tables of the documentation that follow from mutating/results.json.

No mutant is tried here. What the members of the file mean stands in mutating/results.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench_docs import markdown

ROOT: Final = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from mutating import results  # noqa: E402 - found by the line above
from mutating.scope import AREAS  # noqa: E402


def mutation_block() -> str:
    """A line for each area and its modules, and all together."""
    modules = results.load()
    lines = []
    for name, area in AREAS.items():
        rows = {each: modules[each] for each in area.modules}
        lines.append([f"**{name}**: {area.about}", *cells(results.totals([*rows.values()]))])
        lines += [[f"`{each}`", *cells(results.totals([row]))] for each, row in rows.items()]
    lines.append(["**all**", *cells(results.totals([*modules.values()]))])
    header = ["module", "mutants", "noticed", "by a time limit", "survived", "noticed, percent"]
    return markdown(header, lines)


def reasons_block() -> str:
    """Why mutants survive, and how many."""
    whys = results.totals([*results.load().values()])["whys"]
    lines = [[kind, about, f"{whys[kind]}"] for kind, about in results.KINDS.items()]
    return markdown(["why", "what it means", "survivors"], lines)


def cells(sums: dict[str, Any]) -> list[str]:
    noticed = sums["killed"] + sums["timeouts"]
    figures = (sums["mutants"], noticed, sums["timeouts"], sums["survived"])
    return [*(f"{figure:,}" for figure in figures), f"{sums['percent']:.1f}"]


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {
    "mutation": mutation_block,
    "mutation-reasons": reasons_block,
}

"""e2e_docs: tables of the documentation that follow from benchmarks/e2e.json.

make_docs puts them into README.md and docs/e2e.md; nothing is measured here. What the members of
the file mean stands in benchmarks/e2e.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench_docs import Row, made, markdown

EIGHT_BITS: Final = ("int8", "fp8-e4m3", "fp8-e5m2")
LIMIT: Final = 0.5  # percent of perplexity that 8 bits should not cost
RESULTS: Final = Path(__file__).parents[1] / "benchmarks" / "e2e.json"


def load() -> list[dict[str, Any]]:
    runs: list[dict[str, Any]] = json.loads(RESULTS.read_text("utf-8"))["runs"]
    return runs


def e2e_block() -> str:
    """A table for each model and text."""
    return "\n".join([eight_bits(), *(section(run) for run in load())])


def eight_bits() -> str:
    """Which profiles of 8 bits change perplexity by more than they should."""
    told = [
        f"`{row['profile']}` {percent(row['change_percent'])} ± {row['error_percent']:.2f} % "
        f"({run['model']}, {run['text']})"
        for run in load() for row in run["rows"]
        if row["profile"] in EIGHT_BITS and abs(row["change_percent"]) > LIMIT
    ]  # fmt: skip
    names = ", ".join(f"`{profile}`" for profile in EIGHT_BITS)
    return f"Of {names}, beyond {LIMIT} % of perplexity: {', '.join(told) or 'none'}.\n"


def section(run: Row) -> str:
    unstored = run["unstored"]
    untouched = unstored["perplexity"] / (1 + unstored["change_percent"] / 100)
    lines = [[f"`{row['profile']}`", *cells(row)] for row in run["rows"]]
    lines.insert(0, ["the model without a file", "", *cells(unstored)[1:]])
    header = ["profile", "ratio vs f16", "perplexity", "change", "standard error", "KL", "top-1"]
    return (
        f"### {run['model']}, {run['text_about']}\n\n"
        f"{run['about']}. {windows(run)}; with the untouched F16 cache the perplexity is "
        f"{untouched:.4f}.\n\n{markdown(header, lines)}\n{made(run)}"
    )


def windows(run: Row) -> str:
    context = f"context of {run['tokens']} tokens, {run['scored']} tokens scored"
    return context.capitalize() + (f" in {run['windows']} windows" if run["windows"] > 1 else "")


def cells(row: Row) -> list[str]:
    return [
        f"{row.get('ratio', 1):.3f}",
        f"{row['perplexity']:.3f}",
        f"{percent(row['change_percent'])}",
        f"{row['error_percent']:.2f} %",
        small(row["kl"]),
        f"{100 * row['top1']:.1f} %",
    ]


def percent(value: float) -> str:
    return f"{value:+.2f} %" if value else "0"


def small(value: float) -> str:
    """A KL; what is left by the arithmetic of two runs is told as it is."""
    return f"{value:.1e}" if value else "0"


def short_block() -> str:
    """README: one line a profile, two figures a model and text."""
    runs = load()
    lines = []
    for row in runs[0]["rows"]:
        rows = [find(run, row["profile"]) for run in runs]
        ratio = min(each["ratio"] for each in rows)
        told = [f"{percent(each['change_percent'])}, {small(each['kl'])}" for each in rows]
        lines.append([f"`{row['profile']}`", f"{ratio:.3f}", *told])
    header = ["profile", "least ratio vs f16", *(f"{run['model']}, {run['text']}" for run in runs)]
    return f"{markdown(header, lines)}\n{eight_bits()}"


def find(run: Row, profile: str) -> Row:
    found: Row = next(row for row in run["rows"] if row["profile"] == profile)
    return found


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {"e2e": e2e_block, "e2e-short": short_block}

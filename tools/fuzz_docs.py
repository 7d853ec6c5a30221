"""fuzz_docs: tables of the documentation that follow from fuzzing/runs.json.

Nothing is run here. What the members of the file mean stands in fuzzing/runs.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from bench_docs import markdown

ROOT: Final = str(Path(__file__).parents[1])
if ROOT not in sys.path:
    sys.path.append(ROOT)

from fuzzing import runs  # noqa: E402 - found by the line above

READS: Final[Mapping[str, str]] = {
    "front": "preamble, header JSON and manifest of a container, the codecs that it names",
    "chunks": "chunks, planes, pages, index, footer behind a header that holds",
    "capture": "safetensors headers, layouts, guessed layout maps",
    "profile": "profiles, calibrations, objects of the contract",
    "layout_map": "layout maps, and captures read by them",
}


def fuzzing_block() -> str:
    """A line for each target, and all together."""
    found = runs.load()
    sums = runs.totals(found)
    lines = []
    for target, reads in READS.items():
        each = sums.get(target, dict.fromkeys(("runs", *runs.SUMMED), 0))
        features = max((run["features"] for run in found if run["target"] == target), default=0)
        executions, seconds = each["executions"], each["seconds"]
        lines.append([
            f"`{target}`", reads, f"{executions:,}", hours(seconds), f"{features:,}",
            f"{depth(found, target):.2f} %", str(each["crashes"]),
        ])  # fmt: skip
    total = {name: sum(each[name] for each in sums.values()) for name in runs.SUMMED}
    lines.append([
        "all", "", f"{total['executions']:,}", hours(total["seconds"]), "", "",
        str(total["crashes"]),
    ])  # fmt: skip
    header = ["target", "what it reads", "executions", "hours", "features of coverage", "parsed",
              "crashes"]  # fmt: skip
    return f"{markdown(header, lines)}\n{versions(found)}"


def hours(seconds: int) -> str:
    return f"{seconds / 3600:.2f}"


def depth(found: list[runs.Run], target: str) -> float:
    """How many inputs in a hundred were taken to the end."""
    parsed = total = 0
    for run in found:
        if run["target"] == target:
            total += sum(run["outcomes"].values())
            parsed += sum(
                count for name, count in run["outcomes"].items() if name.startswith(TAKEN)
            )
    return 100 * parsed / total if total else 0.0


TAKEN: Final = ("parsed", "bound")


def versions(found: list[runs.Run]) -> str:
    used = sorted({(run["python"], run["atheris"]) for run in found})
    told = ", ".join(f"Python {python} and atheris {atheris}" for python, atheris in used)
    return f"By `make fuzz` with {told or 'nothing yet'}; each run stands in `fuzzing/runs.json`.\n"


BLOCKS: Final[Mapping[str, Callable[[], str]]] = {"fuzzing": fuzzing_block}

"""runs: fuzzing/runs.json: what was run, what it found, and totals of it.

    {"runs": [run...], "totals": {target: {"runs", "executions", "seconds", "crashes"}}}

| member of a run | |
|---|---|
| `target`, `seed` | each pair once |
| `executions`, `seconds`, `per_second` | |
| `edges`, `features`, `inputs` | of coverage and corpus, at the end |
| `outcomes` | how inputs ended, but for the last few |
| `crashes` | 1 if one ended the run |
| `python`, `atheris` | versions |
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, TypeAlias

PATH: Final = Path(__file__).parent / "runs.json"
SUMMED: Final = ("executions", "seconds", "crashes")

Run: TypeAlias = dict[str, Any]


def load(path: Path = PATH) -> list[Run]:
    if not path.exists():
        return []
    runs: list[Run] = json.loads(path.read_text("utf-8"))["runs"]
    return runs


def add(run: Run, path: Path = PATH) -> None:
    runs = [*load(path), run]
    told = ",\n".join(json.dumps(each) for each in runs)
    sums = ",\n".join(f'"{name}": {json.dumps(each)}' for name, each in totals(runs).items())
    path.write_text(f'{{"runs": [\n{told}\n],\n"totals": {{\n{sums}\n}}}}\n', "utf-8")


def totals(runs: list[Run]) -> dict[str, dict[str, int]]:
    """By target, in order of their names."""
    found: dict[str, dict[str, int]] = {}
    for run in sorted(runs, key=lambda each: str(each["target"])):
        sums = found.setdefault(run["target"], {"runs": 0, **dict.fromkeys(SUMMED, 0)})
        sums["runs"] += 1
        for name in SUMMED:
            sums[name] += run[name]
    return found


def next_seed(target: str) -> int:
    return 1 + max((run["seed"] for run in load() if run["target"] == target), default=0)

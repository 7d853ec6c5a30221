"""threads: what a second thread gives, next to what a second process gives in the same run.

    t1        one command with --threads 1
    t2        one command with --threads 2
    side      two commands with --threads 1, side by side, each with an output of its own
    threads   t1 / t2            processes   2 · t1 / side            reached   threads / processes

Each is a median over rounds of what one round gives. Captures are as in commands.py.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.commands import KVQ, profiles
from benchmarks.shell import Command, Runs, run

LINES: Final = {
    "compress": "compress -q -f -p {profile} source -o {profile}.{at}.kvq",
    "decompress": "decompress -q -f {profile}.0.kvq -o restored.{at}",
    "verify": "verify -q {profile}.0.kvq",
}
WRITES: Final = {"compress": "{profile}.{at}.kvq", "decompress": "restored.{at}", "verify": ""}


def variants(what: str, profile: str) -> dict[str, Command]:
    """t1, t2 and side of one command and profile."""

    def line(threads: int, at: int) -> str:
        return f"{KVQ} {LINES[what].format(profile=profile, at=at)} --threads {threads}"

    both = f"{line(1, 1)} & first=$!; {line(1, 2)} || exit 1; wait $first"
    written = [WRITES[what].format(profile=profile, at=at) for at in (0, 1, 2) if WRITES[what]]
    return {
        "t1": Command(f"{what} {profile}, 1 thread", line(1, 0), tuple(written[:1])),
        "t2": Command(f"{what} {profile}, 2 threads", line(2, 0), tuple(written[:1])),
        "side": Command(f"{what} {profile}, 2 processes", both, tuple(written[1:])),
    }


def measure(folder: Path, count: int) -> list[dict[str, Any]]:
    """One row a command and profile for the capture at folder/source."""
    asked = [(profile, what) for profile in profiles() for what in LINES]
    runs = {key: {name: Runs() for name in ("t1", "t2", "side")} for key in asked}
    for _ in range(count):
        for key in asked:
            for name, command in variants(key[1], key[0]).items():
                run(command, folder, runs[key][name])
    return [_row(what, profile, runs[profile, what]) for profile, what in asked]


def _row(what: str, profile: str, runs: dict[str, Runs]) -> dict[str, Any]:
    walls = list(zip(runs["t1"].wall, runs["t2"].wall, runs["side"].wall, strict=True))
    threads = [t1 / t2 for t1, t2, _ in walls]
    processes = [2 * t1 / side for t1, _, side in walls]
    reached = [one / other for one, other in zip(threads, processes, strict=True)]
    return {
        "command": f"{what} {profile}",
        **{f"{name}_s": round(median(each.wall), 3) for name, each in runs.items()},
        "threads": round(median(threads), 3),
        "processes": round(median(processes), 3),
        "reached": round(median(reached), 3),
    }

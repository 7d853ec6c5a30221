"""threads: what a second thread gives, next to what a second process gives in the same run.

    start     the command on a capture of a few tokens: what no thread shortens
    t1        one command with --threads 1
    t2        one command with --threads 2
    side      two commands with --threads 1, side by side, each with an output of its own
    threads   t1 / t2            processes   2 · t1 / side            reached   threads / processes
    work      reached, of what is left of t1, t2 and side without `start`

Each is a median over rounds of what one round gives. Captures are as in commands.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.blocks import MAKE_CAPTURE
from benchmarks.commands import KVQ, profiles
from benchmarks.shell import Command, Runs, run

LINES: Final = {
    "compress": "compress -q -f -p {profile} {capture} -o {capture}.{profile}.{at}.kvq",
    "decompress": "decompress -q -f {capture}.{profile}.0.kvq -o {capture}.restored.{at}",
    "verify": "verify -q {capture}.{profile}.0.kvq",
}
WRITES: Final = {
    "compress": "{capture}.{profile}.{at}.kvq",
    "decompress": "{capture}.restored.{at}",
    "verify": "",
}
WAYS: Final = ("start", "t1", "t2", "side")
SMALL: Final = 1 << 16  # bytes of the capture that only start-up is measured with


def variants(what: str, profile: str) -> dict[str, Command]:
    """One command and profile in all ways."""

    def line(threads: int, at: int, capture: str = "source") -> str:
        words = LINES[what].format(profile=profile, at=at, capture=capture)
        return f"{KVQ} {words} --threads {threads}"

    def written(*places: int, capture: str = "source") -> tuple[str, ...]:
        name = WRITES[what]
        return tuple(name.format(profile=profile, at=at, capture=capture) for at in places if name)

    both = f"{line(1, 1)} & first=$!; {line(1, 2)} || exit 1; wait $first"
    return {
        "start": Command("start", line(1, 0, "small"), written(0, capture="small")),
        "t1": Command(f"{what} {profile}, 1 thread", line(1, 0), written(0)),
        "t2": Command(f"{what} {profile}, 2 threads", line(2, 0), written(0)),
        "side": Command(f"{what} {profile}, 2 processes", both, written(1, 2)),
    }


def measure(folder: Path, count: int) -> list[dict[str, Any]]:
    """One row a command and profile for the capture at folder/source."""
    call = [sys.executable, str(MAKE_CAPTURE), str(folder / "small"), f"--bytes={SMALL}"]
    subprocess.run([*call, "--layers=1"], check=True)
    asked = [(profile, what) for profile in profiles() for what in LINES]
    runs = {key: {name: Runs() for name in WAYS} for key in asked}
    for _ in range(count):
        for key in asked:
            for name, command in variants(key[1], key[0]).items():
                run(command, folder, runs[key][name])
    return [_row(what, profile, runs[profile, what]) for profile, what in asked]


def _row(what: str, profile: str, runs: dict[str, Runs]) -> dict[str, Any]:
    walls = list(zip(*(runs[name].wall for name in WAYS), strict=True))
    threads = [t1 / t2 for _, t1, t2, _ in walls]
    processes = [2 * t1 / side for _, t1, _, side in walls]
    reached = [one / other for one, other in zip(threads, processes, strict=True)]
    work = [(side - start) / (t2 - start) / 2 for start, _, t2, side in walls]
    return {
        "command": f"{what} {profile}",
        **{f"{name}_s": round(median(runs[name].wall), 3) for name in WAYS},
        "threads": round(median(threads), 3),
        "processes": round(median(processes), 3),
        "reached": round(median(reached), 3),
        "work": round(median(work), 3),
    }

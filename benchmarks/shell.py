"""shell: timed shell lines: wall and processor seconds, and the peak of memory, of each round."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine


@dataclass(frozen=True, slots=True)
class Command:
    """A shell line in a folder, and the files that it writes, if any."""

    name: str
    line: str
    writes: tuple[str, ...] = ()


@dataclass(slots=True)
class Runs:
    """What a command took, a number a round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0  # the largest resident size, and never less than that of the benchmark

    def row(self, name: str, source: int) -> dict[str, Any]:
        return {
            "command": name,
            "median_s": round(median(self.wall), 3),
            "least_s": round(min(self.wall), 3),
            "cpu_s": round(median(self.cpu), 3),
            "source_mb_s": round(source / median(self.wall) / 1e6),
            "peak_mb": round(self.peak / 1024),
        }


def run(command: Command, folder: Path, runs: Runs) -> None:
    """One timed run, on a disk that has nothing left to write."""
    for name in command.writes:
        (folder / name).unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    # os.wait4 alone tells of one child's time; Popen is not asked again.
    line = f"cd '{folder}' && exec >out.txt || exit 1; {command.line}"
    child = os.posix_spawn("/bin/sh", ["sh", "-c", line], machine.plain())
    _, status, used = os.wait4(child, 0)
    runs.wall.append(time.perf_counter() - start)
    runs.cpu.append(used.ru_utime + used.ru_stime)
    runs.peak = max(runs.peak, used.ru_maxrss)
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise SystemExit(f"benchmarks: {command.name} ended with {code}")

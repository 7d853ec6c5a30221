"""bench: what codecs and whole commands cost, next to what a user has without kvq.

    python tools/bench.py [--codecs] [--commands] [--rounds 5] [--bytes N] [--zstd-19]
                          [--folder DIR] [--json FILE]

--codecs is tools/bench_codecs.py: nanoseconds an element, relative to NumPy's cast and to a
copy. --commands runs kvq and its rivals on captures of tools/make_capture.py, in turn, round
after round, so that a slow minute of the machine hits all of them. Everything that writes a
file ends with that file on disk: kvq syncs by itself, rivals are followed by sync. Times are
wall seconds, medians and least; cpu is user and system time of the command and its children;
a ratio is the median over rounds of the ratio within a round. The peak is the largest resident
size, and never less than bench's own. Without either option both run.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import bench_codecs

TOOLS: Final = Path(__file__).parent
KVQ: Final = f"{sys.executable} -m kvq_cli"
DEFAULT_BYTES: Final = 1 << 29
GEOMETRIES: Final = (
    {"layers": 32, "heads": 8, "channels": 128},
    {"layers": 30, "heads": 3, "channels": 64},
)


@dataclass(frozen=True, slots=True)
class Command:
    """A shell line over the file `source`, and the one file that it writes, if any."""

    name: str
    line: str
    writes: str | None = None


COMMANDS: Final = (
    Command("cp + sync", "cp --reflink=never source copy && sync copy", "copy"),
    Command("floor of int8", f"{sys.executable} {TOOLS}/bench_floor.py source half", "half"),
    Command("compress int8", f"{KVQ} compress -q -p int8 source -o int8.kvq", "int8.kvq"),
    Command(
        "compress lossless", f"{KVQ} compress -q -p lossless source -o lossless.kvq", "lossless.kvq"
    ),
    Command("zstd -1 + sync", "zstd -q -1 -T2 source -o 1.zst && sync 1.zst", "1.zst"),
    Command("zstd -3 + sync", "zstd -q -3 -T2 source -o 3.zst && sync 3.zst", "3.zst"),
    Command("decompress int8", f"{KVQ} decompress -q int8.kvq -o restored", "restored"),
    Command("decompress lossless", f"{KVQ} decompress -q lossless.kvq -o restored", "restored"),
    Command("unzstd -3 + sync", "zstd -q -d 3.zst -o restored && sync restored", "restored"),
    Command("verify int8", f"{KVQ} verify -q int8.kvq"),
    Command("inspect int8", f"{KVQ} inspect -q int8.kvq"),
    Command("verify --quick int8", f"{KVQ} verify -q --quick int8.kvq"),
    Command("sha256sum of int8", "sha256sum int8.kvq"),
    Command("verify lossless", f"{KVQ} verify -q lossless.kvq"),
    Command("sha256sum of lossless", "sha256sum lossless.kvq"),
)
ZSTD_19: Final = Command("zstd -19 + sync", "zstd -q -19 -T2 source -o 19.zst && sync 19.zst")

RATIOS: Final = (
    ("compress int8", "cp + sync"),
    ("floor of int8", "cp + sync"),
    ("compress lossless", "cp + sync"),
    ("compress lossless", "zstd -1 + sync"),
    ("compress lossless", "zstd -3 + sync"),
    ("decompress int8", "cp + sync"),
    ("decompress lossless", "unzstd -3 + sync"),
    ("verify int8", "sha256sum of int8"),
    ("verify lossless", "sha256sum of lossless"),
)


@dataclass(slots=True)
class Runs:
    """What a command took, a number a round."""

    wall: list[float]
    cpu: list[float]
    peak: int = 0


def run(command: Command, folder: Path, runs: Runs) -> None:
    """One timed run, on a disk that has nothing left to write."""
    if command.writes:
        (folder / command.writes).unlink(missing_ok=True)
    os.sync()
    start = time.perf_counter()
    # os.wait4 alone tells of one child's time; Popen is not asked again.
    child = os.posix_spawn("/bin/sh", ["sh", "-c", f"exec >out.txt; {command.line}"], os.environ)
    _, status, used = os.wait4(child, 0)
    runs.wall.append(time.perf_counter() - start)
    runs.cpu.append(used.ru_utime + used.ru_stime)
    runs.peak = max(runs.peak, used.ru_maxrss)
    if status:
        raise SystemExit(f"bench: {command.name} ended with {os.waitstatus_to_exitcode(status)}")


def sizes(folder: Path) -> dict[str, int]:
    names = ("source", "int8.kvq", "lossless.kvq", "1.zst", "3.zst", "19.zst")
    return {name: (folder / name).stat().st_size for name in names if (folder / name).exists()}


def compare(folder: Path, rounds: int, *, zstd_19: bool) -> dict[str, Any]:
    """Rows of times, ratios and sizes for the capture at folder/source."""
    runs = {command.name: Runs([], []) for command in COMMANDS}
    home = Path.cwd()
    os.chdir(folder)
    try:
        for _ in range(rounds):
            for command in COMMANDS:
                run(command, folder, runs[command.name])
        if zstd_19:
            runs[ZSTD_19.name] = Runs([], [])
            run(ZSTD_19, folder, runs[ZSTD_19.name])
    finally:
        os.chdir(home)
    found = sizes(folder)
    return {
        "times": [time_row(name, each, found["source"]) for name, each in runs.items()],
        "ratios": [ratio_row(runs[one], runs[other], one, other) for one, other in RATIOS],
        "sizes": [
            {"file": name, "bytes": size, "source_over_it": round(found["source"] / size, 4)}
            for name, size in found.items()
        ],
    }


def time_row(name: str, runs: Runs, source: int) -> dict[str, Any]:
    return {
        "command": name,
        "median_s": round(median(runs.wall), 3),
        "least_s": round(min(runs.wall), 3),
        "cpu_s": round(median(runs.cpu), 3),
        "cpu_least_s": round(min(runs.cpu), 3),
        "source_mb_per_s": round(source / median(runs.wall) / 1e6),
        "peak_mb": round(runs.peak / 1024),
    }


def ratio_row(one: Runs, other: Runs, name: str, rival: str) -> dict[str, Any]:
    wall = [a / b for a, b in zip(one.wall, other.wall, strict=True)]
    return {
        "ratio": f"{name} / {rival}",
        "wall": round(median(wall), 2),
        "wall_least": round(min(one.wall) / min(other.wall), 2),
        "cpu_least": round(min(one.cpu) / max(min(other.cpu), 1e-3), 2),
    }


@contextmanager
def capture(parent: Path | None, geometry: dict[str, int], nbytes: int) -> Iterator[Path]:
    """A folder with a capture called `source`; it goes with all that commands put there."""
    folder = Path(tempfile.mkdtemp(prefix="kvq-bench-", dir=parent))
    try:
        words = [f"--{name}={value}" for name, value in geometry.items()]
        tool = TOOLS / "make_capture.py"
        call = [sys.executable, str(tool), str(folder / "source"), f"--bytes={nbytes}", *words]
        subprocess.run(call, check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def on_disk() -> Path | None:
    """A folder that outlives a restart: it is a disk where others may be memory."""
    place = Path("/var/tmp")  # noqa: S108 - mkdtemp makes a folder of its own there
    return place if os.access(place, os.W_OK) else None


def machine() -> dict[str, Any]:
    """Where and with what: for the JSON alone."""
    processor = platform.processor()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text().splitlines()
        processor = next((line for line in lines if line.startswith("model name")), processor)
    packages = ("kvq-cli", "numpy", "blake3", "zstandard", "safetensors")
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": processor.partition(":")[2].strip() or processor,
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "zstd": subprocess.run(
            ["zstd", "--version"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "load": os.getloadavg(),
    }


def codec_rows(seconds: float) -> list[dict[str, Any]]:
    """The table of bench_codecs, from a process of its own: this one stays small."""
    words = [sys.executable, str(TOOLS / "bench_codecs.py"), "--json", f"--seconds={seconds}"]
    rows: list[dict[str, Any]] = json.loads(subprocess.check_output(words))
    return rows


def command_tables(options: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for geometry in GEOMETRIES:
        with capture(options.folder or on_disk(), geometry, options.bytes) as folder:
            tables = compare(folder, options.rounds, zstd_19=options.zstd_19)
        words = ", ".join(f"{value} {name}" for name, value in geometry.items())
        print(f"\n{options.bytes / 2**20:.0f} MiB F16, {words}, {options.rounds} rounds")
        for rows in tables.values():
            print(f"\n{bench_codecs.table(rows)}", flush=True)
        found.append({"geometry": geometry, **tables})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codecs", action="store_true", help="only this, unless --commands too")
    parser.add_argument("--commands", action="store_true", help="only this, unless --codecs too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bytes", type=int, default=DEFAULT_BYTES, help="of each capture")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each number of channels")
    parser.add_argument("--zstd-19", action="store_true", help="once: it takes minutes")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; needs 6 captures")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    both = options.codecs == options.commands
    report: dict[str, Any] = {"machine": machine()}
    if options.codecs or both:
        report["codecs"] = codec_rows(options.seconds)
        print(bench_codecs.table(report["codecs"]), flush=True)
    if options.commands or both:
        report["commands"] = command_tables(options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()

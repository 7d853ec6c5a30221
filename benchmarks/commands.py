"""commands: whole commands of kvq next to cp, zstd and sha256sum of the same files.

Captures are of tools/make_capture.py; they lie in the page cache. What writes a file ends with
that file on disk: kvq syncs by itself, rivals are followed by sync; `zstd -1` is there without
too. Ratios are medians over rounds of the ratio within a round.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from os import W_OK, access
from pathlib import Path
from typing import Any, Final

from benchmarks import rounds
from benchmarks.blocks import MAKE_CAPTURE
from benchmarks.shell import Command, Runs, run
from kvq_cli.profile import builtin_names

KVQ: Final = f"'{sys.executable}' -m kvq_cli"
FLOOR: Final = Path(__file__).with_name("floor.py")
BYTES: Final = 1 << 29
GEOMETRIES: Final = (
    {"layers": 32, "heads": 8, "channels": 128},
    {"layers": 30, "heads": 3, "channels": 64},
)
PROFILES: Final = (
    "lossless", "int8", "fp8-e4m3", "int4", "int4-g64", "kivi-4bit", "kivi-2bit",
    "turboquant-4bit", "fibquant-2bit",
)  # fmt: skip
LEVELS: Final = (1, 3, 19)
SLOW: Final = "zstd -19"  # once: it takes minutes


def profiles() -> list[str]:
    return [name for name in PROFILES if name in builtin_names()]


def ours(name: str) -> list[Command]:
    """The three commands that read or write all of a container."""
    kvq = f"{name}.kvq"
    return [
        Command(f"compress {name}", f"{KVQ} compress -q -p {name} source -o {kvq}", (kvq,)),
        Command(f"decompress {name}", f"{KVQ} decompress -q {kvq} -o restored", ("restored",)),
        Command(f"verify {name}", f"{KVQ} verify -q {kvq}"),
    ]


def theirs(*, slow: bool) -> list[Command]:
    found = [
        Command("cp", "cp --reflink=never source copy && sync copy", ("copy",)),
        Command("floor of int8", f"'{sys.executable}' '{FLOOR}' source half", ("half",)),
        Command("sha256sum", "sha256sum source"),
    ]
    if shutil.which("zstd") is None:
        return found
    found.append(Command("zstd -1 without sync", "zstd -q -1 -T2 source -o 0.zst", ("0.zst",)))
    for level in LEVELS:
        if slow or f"zstd -{level}" != SLOW:
            line = f"zstd -q -{level} -T2 source -o {level}.zst && sync {level}.zst"
            found.append(Command(f"zstd -{level}", line, (f"{level}.zst",)))
    back = "zstd -q -d 1.zst -o restored && sync restored"
    return [*found, Command("unzstd -1", back, ("restored",))]


RIVALS: Final = {
    "compress": ("cp", "zstd -1", "zstd -1 without sync", "zstd -3", "zstd -19"),
    "decompress": ("cp", "unzstd -1"),
    "verify": ("sha256sum",),
}


@contextmanager
def capture(parent: Path | None, geometry: dict[str, int], nbytes: int) -> Iterator[Path]:
    """A folder with a capture called `source`; it goes with all that commands put there."""
    folder = Path(tempfile.mkdtemp(prefix="kvq-bench-", dir=parent or _on_disk()))
    try:
        words = [f"--{name}={value}" for name, value in geometry.items()]
        call = [sys.executable, str(MAKE_CAPTURE), str(folder / "source"), f"--bytes={nbytes}"]
        subprocess.run([*call, *words], check=True)
        yield folder
    finally:
        shutil.rmtree(folder)


def _on_disk() -> Path | None:
    """A folder that outlives a restart: it is a disk where others may be memory."""
    place = Path("/var/tmp")  # noqa: S108 - mkdtemp makes a folder of its own there
    return place if access(place, W_OK) else None


def measure(folder: Path, count: int, *, slow: bool) -> dict[str, list[dict[str, Any]]]:
    """Rows of times, ratios and sizes for the capture at folder/source."""
    commands = [*theirs(slow=slow), *(each for name in profiles() for each in ours(name))]
    runs = {command.name: Runs() for command in commands}
    for turn in range(count):
        for command in commands:
            if turn == 0 or command.name != SLOW:
                run(command, folder, runs[command.name])
    source = (folder / "source").stat().st_size
    return {
        "times": [each.row(name, source) for name, each in runs.items()],
        "ratios": list(_ratios(runs)),
        "sizes": list(_sizes(folder, source)),
    }


def _ratios(runs: dict[str, Runs]) -> Iterator[dict[str, Any]]:
    for name, mine in runs.items():
        for rival in RIVALS.get(name.partition(" ")[0], ()):
            if rival in runs:
                other = runs[rival].wall
                own = mine.wall[: len(other)]
                yield {"command": name, "rival": rival, "wall": round(rounds.ratio(own, other), 3)}


def _sizes(folder: Path, source: int) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.iterdir()):
        if path.suffix in (".kvq", ".zst") and path.name != "0.zst":
            size = path.stat().st_size
            yield {"file": path.name, "bytes": size, "of_source": round(size / source, 4)}

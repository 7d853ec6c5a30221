"""corpus: inputs of a target as text in corpus/TARGET.txt, and as files in build/fuzz/TARGET.

    line := base64 " " origin

A line's origin is "found" for what a run found, or begins with "crash" and tells what was mended.
Seeds are no lines: the target makes them.
"""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
TEXT: Final = Path(__file__).parent / "corpus"
FILES: Final = ROOT / "build" / "fuzz"
TARGETS: Final = ("front", "chunks", "capture", "profile", "layout_map")
MOST: Final = 100_000  # bytes of a text file
LONGEST: Final = 8192  # bytes of an input that a merge looks at
FOUND: Final = "found"
CRASH: Final = "crash"


def module(target: str) -> Any:
    return import_module(f"fuzzing.targets.{target}")


def lines(target: str) -> list[tuple[str, bytes]]:
    """Origin and input of each line."""
    path = TEXT / f"{target}.txt"
    text = path.read_text("utf-8").splitlines() if path.exists() else []
    parted = (line.split(" ", 1) for line in text)
    return [(origin, base64.b64decode(data)) for data, origin in parted]


def inputs(target: str) -> Iterator[tuple[str, bytes]]:
    """All that is known: seeds and lines."""
    yield from module(target).seeds()
    yield from lines(target)


def unpack(target: str, folder: Path | None = None) -> Path:
    """The folder of a target, with its seeds and lines in it."""
    folder = folder or FILES / target
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, (data for _, data in inputs(target)))
    return folder


def write_files(folder: Path, found: Iterable[bytes]) -> None:
    for data in found:
        (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)


def there(folder: Path) -> Iterator[bytes]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            yield path.read_bytes()


def merge(target: str) -> int:
    """Write what reaches more than the seeds do, and no other input; how many lines these are."""
    folder = unpack(target)
    seeds = [data for _, data in module(target).seeds()]
    crashes = [(origin, data) for origin, data in lines(target) if origin.startswith(CRASH)]
    with tempfile.TemporaryDirectory() as made:
        known = Path(made, "known")
        known.mkdir()
        write_files(known, [*seeds, *(data for _, data in crashes)])
        before = set(known.iterdir())
        # A copy: a run that is under way removes files, which a merge does not forgive.
        whole = Path(made, "whole")
        whole.mkdir()
        write_files(whole, there(folder))
        options = ["-merge=1", f"-max_len={LONGEST}", str(known), str(whole)]
        words = command(target, Path(made, "counts"), options)
        subprocess.run(words, check=True, env=environment(), cwd=made, capture_output=True)
        found = [path.read_bytes() for path in set(known.iterdir()) - before]
    found.sort(key=lambda data: (len(data), data))
    return write(target, [*crashes, *((FOUND, data) for data in found)])


def write(target: str, found: Iterable[tuple[str, bytes]]) -> int:
    """The text file, without the largest, which come last, where it grows too long."""
    text: list[str] = []
    size = 0
    for origin, data in found:
        line = f"{base64.b64encode(data).decode()} {origin}\n"
        size += len(line)
        if size > MOST:
            break
        text.append(line)
    TEXT.mkdir(exist_ok=True)
    (TEXT / f"{target}.txt").write_text("".join(text), "utf-8")
    return len(text)


def command(target: str, counts: Path, options: list[str]) -> list[str]:
    return [sys.executable, "-m", "fuzzing.worker", target, str(counts), *options]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}

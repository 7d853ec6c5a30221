"""soak: thousands of small captures through every command while processes are killed at random.

    python tests/soak.py --captures 10000              what `make soak` runs
    python tests/soak.py --first 2500 --captures 2500  a piece of it: a capture is its number

Two workers live through all of it. For ten captures at a time each compresses them in its own
process, undisturbed, by the Python API. Then commands do the same, verify and restore, through
files and pipes, half of them ended by SIGKILL, SIGTERM or SIGINT at a random moment and begun
again for what is missing. It ends with one line of totals, or with what broke:

    nothing lost     containers equal those made undisturbed; what is restored from them equals
                     the capture, or where that is lossy what is restored undisturbed
    nothing left     no temporary file or folder once a command came to its end
    nothing leaked   a worker has as many files open as before, and MARGIN more memory at most
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kvq_cli
from support.captures import (
    canonical_capture,
    lmcache_file,
    per_layer_capture,
    vllm_files,
    write_folder,
)
from support.forked import ended, start
from support.shell import listing

SEED = "kvq soak 1"
BATCH = 10
WORKERS = 2
MARGIN = 32 << 20  # bytes of memory by which a worker may grow once it is warm
WARM = 100  # captures
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
HEADS = (1, 2, 4, 8)  # one is MQA, eight are those of a small model without groups
CHANNELS = (64, 128, 256)
DTYPES = ("F16", "BF16", "F32")
LOSSLESS = ("lossless", "raw")
PROFILES = (*LOSSLESS, "int8", "int4", "kivi-2bit", "fp8-e4m3", "turboquant-4bit")
SURE = ("canonical", "hf", "vllm")  # others do not say enough for lossy profiles
LAYOUTS = (*SURE, "canonical", "hf", "vllm_cpu", "lmcache")
MOST = 1 << 18  # numbers of a capture


def drawn(what: str) -> random.Random:
    """Chance that is the same in every soak."""
    return random.Random(f"{SEED} {what}")  # noqa: S311 - nothing is secret


class SoakError(Exception):
    """What must hold did not."""


@dataclass(frozen=True)
class Batch:
    """Captures of one layout for one profile."""

    numbers: range
    layout: str
    profile: str

    @classmethod
    def of(cls, numbers: range) -> Batch:
        draw = drawn(f"batch {numbers[0]}")
        layout = draw.choice(LAYOUTS)
        return cls(numbers, layout, draw.choice(PROFILES if layout in SURE else LOSSLESS))

    @property
    def options(self) -> list[str]:
        named = ["--layout", self.layout] if self.layout.startswith("vllm") else []
        return ["-p", self.profile, *named, "-T1"]

    def write(self, folder: Path) -> list[Path]:
        """Its captures, as files or folders."""
        return [
            write_capture(folder / f"c{number}", self.layout, number) for number in self.numbers
        ]


def write_capture(path: Path, layout: str, number: int) -> Path:
    """The capture of this number, which decides all but its layout."""
    draw = drawn(f"capture {number}")
    heads, channels, dtype = draw.choice(HEADS), draw.choice(CHANNELS), draw.choice(DTYPES)
    layers = draw.randint(1, 3)
    tokens = max(1, min(draw.randint(1, 300), MOST // (2 * layers * heads * channels)))
    shape = {"heads": heads, "tokens": tokens, "channels": channels, "dtype": dtype}
    if layout == "canonical":
        path.write_bytes(canonical_capture(layers=layers, **shape))
    elif layout == "hf":
        path.write_bytes(per_layer_capture(**{**shape, "tokens": [tokens] * layers}))
    elif layout == "lmcache":
        path.write_bytes(lmcache_file(layers=layers, **shape))
    else:
        whole = {**shape, "tokens": -(-tokens // 4) * 4}  # blocks of four tokens
        write_folder(path, vllm_files(layout, layers=range(layers), **whole))
    return path


def content(path: Path) -> object:
    """All of a file or folder, to be compared."""
    return listing(path) if path.is_dir() else path.read_bytes()


class Worker:
    """One process for many batches."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder = folder
        self.draw = drawn(f"kills {number}")
        self.tally: Counter[str] = Counter()
        self.killed = 0  # of the commands over one batch

    def run(self, batches: Sequence[Batch]) -> Counter[str]:
        """All batches; what a worker holds is looked at before and behind them."""
        files = warm = 0
        for batch in batches:
            self.one(batch)
            if self.tally["captures"] == WARM:
                files, warm = held()
        if files:
            files_now, now = held()
            self.tally["grown"] = max(0, now - warm)
            check(files_now == files, f"{files_now} open files, {files} before")
            check(now - warm <= MARGIN, f"grown by {now - warm} bytes")
        return self.tally

    def one(self, batch: Batch) -> None:
        """Ten captures, there and back."""
        for name in ("in", "out", "back", "whole"):
            (self.folder / name).mkdir()
        captures = batch.write(self.folder / "in")
        expected = {path.name: self.undisturbed(path, batch) for path in captures}
        out, back = self.folder / "out", self.folder / "back"
        containers = {f"{name}.kvq": made for name, (made, _) in expected.items()}
        self.until_there("compress", "in", out, containers, batch.options)
        self.until_done(["verify", *sorted(out.glob("*.kvq")), "-T1"])
        self.until_there(
            "decompress", "out", back, {name: wanted for name, (_, wanted) in expected.items()}
        )
        self.piped(captures[0], batch, containers)
        self.tally["captures"] += len(captures)
        self.tally["identical" if batch.profile in LOSSLESS else "lossy"] += len(captures)
        for name in ("in", "out", "back", "whole"):
            shutil.rmtree(self.folder / name)

    def undisturbed(self, path: Path, batch: Batch) -> tuple[bytes, object]:
        """The container that the API makes, and what it restores from it."""
        target, back = self.folder / "whole" / f"{path.name}.kvq", self.folder / "whole" / path.name
        layout = batch.layout if batch.layout.startswith("vllm") else None
        kvq_cli.compress(path, target, profiles=[batch.profile], layout=layout, threads=1)
        with kvq_cli.open_container(target):
            kvq_cli.verify(target, threads=1)
        kvq_cli.decompress(target, back, threads=1)
        restored, original = content(back), content(path)
        check(batch.profile not in LOSSLESS or restored == original, f"{path}: not restored")
        return target.read_bytes(), restored

    def until_there(
        self,
        command: str,
        source: str,
        target: Path,
        expected: dict[str, object] | dict[str, bytes],
        options: Sequence[str] = ("-T1",),
    ) -> None:
        """A command over all inputs, begun again for those whose output is missing."""
        self.killed = 0
        suffix = ".kvq" if command == "decompress" else ""
        while missing := [name for name in expected if not (target / name).exists()]:
            inputs = [
                self.folder / source / (f"{name}{suffix}" if suffix else name.removesuffix(".kvq"))
                for name in missing
            ]
            code, _ = self.command([command, *inputs, "-o", f"{target}/", *options])
            there = [path for path in target.iterdir() if not path.name.startswith(".kvq-")]
            for path in there:
                check(content(path) == expected[path.name], f"{path}: not what it should be")
            check(code != 0 or len(there) == len(expected), f"{command}: done, and not all there")
        left = [path.name for path in target.iterdir() if path.name.startswith(".kvq-")]
        check(self.only_killed(left, expected), f"{command}: left {left}")

    def only_killed(self, left: list[str], expected: dict[str, object] | dict[str, bytes]) -> bool:
        """Whether what is left may be of a writer killed when its output was there already."""
        self.tally["left by SIGKILL"] += len(left)
        return len(left) <= self.killed and len(left) <= len(expected)

    def until_done(self, line: list[object]) -> None:
        while self.command(line)[0]:
            pass

    def piped(self, path: Path, batch: Batch, containers: dict[str, bytes]) -> None:
        """One capture through pipes, there and back."""
        data = containers[f"{path.name}.kvq"]
        if path.is_file():
            line: list[object] = ["compress", "-", *batch.options]
            check(self.through(line, path.read_bytes()) == data, f"{path}: not the same by pipe")
            whole = (self.folder / "whole" / path.name).read_bytes()
            back = self.through(["decompress", "-", "-T1"], data)
            check(back == whole, f"{path}: not restored by pipe")

    def through(self, line: list[object], data: bytes) -> bytes:
        code = 1
        while code:
            code, found = self.command(line, data)
        return found

    def command(self, line: list[object], data: bytes | None = None) -> tuple[int, bytes]:
        """A command, which a signal may end: its exit code, and what it printed."""
        number = self.draw.choice(SIGNALS) if self.draw.random() < 0.5 else None
        delay = self.draw.random() ** 2 * 0.25
        feeder, stdin = feed(data)
        reading, out = os.pipe()
        child = start(*line, stdin=stdin, out=out, first=lambda: os.close(reading))
        for fd in (out, stdin):
            if fd is not None:
                os.close(fd)
        found, sent = drained(reading, child, number, delay)
        code = ended(child)
        if feeder:
            ended(feeder)
        self.tally["commands"] += 1
        if number is not None and sent:
            self.tally[f"{number.name} sent"] += 1
            self.killed += number == signal.SIGKILL
            # 98: between the fork and the first line of kvq there is nobody to hear an interrupt.
            allowed = {signal.SIGINT: (0, 130, 98)}.get(number, (0, 130, -number))
            check(code in allowed, f"{line}: exit code {code} after {number.name}")
            self.tally["ended by it"] += code != 0
        else:
            check(code == 0, f"{line}: exit code {code}")
        return code, found


def feed(data: bytes | None) -> tuple[int, int | None]:
    """A process that writes the data to a pipe, and the pipe."""
    if data is None:
        return 0, None
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            while data:
                data = data[os.write(writing, data) :]
        finally:
            os._exit(0)
    os.close(writing)
    return child, reading


def drained(
    reading: int, child: int, number: signal.Signals | None, delay: float
) -> tuple[bytes, bool]:
    """All that the child prints; the signal is sent when its moment comes before the end."""
    sent, found = False, []
    moment = time.monotonic() + delay
    while True:
        wait = max(0.0, moment - time.monotonic()) if number and not sent else None
        ready, _, _ = select.select([reading], [], [], wait)
        if not ready:
            os.kill(child, number or 0)
            sent = True
        elif piece := os.read(reading, 1 << 16):
            found.append(piece)
        else:
            os.close(reading)
            return b"".join(found), sent


def held() -> tuple[int, int]:
    """Files that are open, and bytes of memory."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return len(os.listdir("/proc/self/fd")), pages * os.sysconf("SC_PAGE_SIZE")


def check(holds: bool, what: str) -> None:
    if not holds:
        raise SoakError(what)


def soak(first: int, captures: int, folder: Path) -> Counter[str]:
    """The totals of all workers; SoakError where one of them found something."""
    batches = [
        Batch.of(range(at, min(at + BATCH, first + captures)))
        for at in range(first, first + captures, BATCH)
    ]
    children = {}
    for number in range(WORKERS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _in_worker(folder / str(number), number, batches[number::WORKERS], writing)
        os.close(writing)
        children[child] = reading
    total, wrong = Counter[str](), []
    for child, reading in children.items():
        with os.fdopen(reading, "rb") as pipe:
            told = json.loads(pipe.read() or '{"error": "a worker died"}')
        ended(child)
        wrong += [told.pop("error")] if "error" in told else []
        total["grown"] = max(total["grown"], told.pop("grown", 0))
        total.update(told)
    check(not wrong, "; ".join(wrong))
    return total


def _in_worker(folder: Path, number: int, batches: Sequence[Batch], writing: int) -> None:
    try:
        folder.mkdir()
        tempfile.tempdir = os.environ["KVQ_TMPDIR"] = str(folder)
        told: dict[str, object] = dict(Worker(folder, number).run(batches))
        left = os.listdir(folder)
        check(not left, f"left {left}")
    except Exception as error:  # noqa: BLE001 - told by the parent
        told = {"error": f"{type(error).__name__}: {error}"}
    os.write(writing, json.dumps(told).encode())
    os._exit(0)


def main() -> int:
    parser = argparse.ArgumentParser(description="Soak kvq in captures and kills.")
    parser.add_argument("--first", type=int, default=0, help="number of the first capture")
    parser.add_argument("--captures", type=int, default=10_000)
    asked = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kvq-soak-") as name:
        try:
            total = soak(asked.first, asked.captures, Path(name))
        except SoakError as error:
            print(f"soak: {error}", file=sys.stderr)  # noqa: T201 - the answer
            return 1
    grown = total.pop("grown") / (1 << 20)
    totals = ", ".join(f"{count} {what}" for what, count in sorted(total.items()))
    last = asked.first + asked.captures - 1
    seconds = time.monotonic() - begin
    range_told = f"captures {asked.first} to {last}"
    print(f"{range_told}: {totals}; {grown:.1f} MiB grown; {seconds:.0f} s")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

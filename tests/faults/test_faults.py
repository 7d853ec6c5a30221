"""A system call that fails, is interrupted, does half, or is the last: the promise of outputs.

Each command runs in a forked child, again and again; in run k something happens to call k
between the process and the system (support.tracing). Whatever it was,

    the target     is as it was, or the complete new one, equal to that of an undisturbed run
    exit code      6 for a refused call; 0 where half was done or a wait was interrupted;
                   130 for SIGTERM, 141 for a broken pipe
    standard error one line with an id, or what an undisturbed run says
    left behind    no temporary file, no open descriptor; after SIGKILL a temporary, which the
                   next run over the same target removes

A command is one line in SCENES.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from kvq_cli.steps import renaming
from support.captures import canonical_capture, vllm_files, write_folder
from support.forked import answer, become
from support.shell import ERROR, done, listing
from support.tracing import (
    LOOKS,
    POSSIBLE,
    READS,
    WRITES,
    Cut,
    Fault,
    Refuse,
    Signal,
    Traced,
    traced,
)

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="calls are traced on Linux x86-64 only")

FAULTS: Mapping[str, Fault] = {
    "EIO": Refuse(errno.EIO),
    "EIO late": Refuse(errno.EIO, late=True),
    "ENOSPC": Refuse(errno.ENOSPC),
    "EINTR": Refuse(errno.EINTR),
    "half": Cut(),
    "SIGKILL": Signal(signal.SIGKILL),
    "SIGKILL late": Signal(signal.SIGKILL, late=True),
    "SIGTERM": Signal(signal.SIGTERM, late=True),
    "EPIPE": Refuse(errno.EPIPE),
}
# What Python does again where the system interrupts it. A file system that interrupts the change
# of a name fails like any other: nobody can tell whether it was changed.
WAITS = (*READS.values(), *WRITES.values(), "openat", "fsync", "ftruncate", "fchmod", "flock")
RENAMES = ("link", "linkat", "rename", "renameat", "renameat2")


@dataclass(frozen=True)
class Scene:
    """A command, and what is there before it.

    IN is the folder of inputs, DIR that of outputs, and OUT a name in it.
    """

    line: str
    old: Mapping[str, str] = field(default_factory=dict)  # names in DIR, and which inputs they are
    stdin: str = ""  # the input that comes through a pipe
    lacking: tuple[str, ...] = ()  # what the file system cannot do


OLD = re.compile(r"\.kvq-[0-9a-f]{16}\.old")
THERE = {"target": "old"}
SCENES: Mapping[str, Scene] = {
    "compress": Scene("compress IN/cache -o OUT"),
    "compress over a file": Scene("compress IN/cache -o OUT --force", THERE),
    "compress a folder": Scene("compress IN/dump --layout vllm_cpu -o OUT"),
    "compress a pipe": Scene("compress - -o OUT", stdin="cache"),
    "compress to a pipe": Scene("compress IN/cache -o -"),
    "decompress": Scene("decompress IN/cache.kvq -o OUT"),
    "decompress over a file": Scene("decompress IN/cache.kvq -o OUT --force", THERE),
    "decompress a pipe": Scene("decompress - -o OUT", stdin="cache.kvq"),
    "decompress to a pipe": Scene("decompress IN/cache.kvq -o -"),
    "decompress a part": Scene("decompress IN/cache.kvq --tokens 3:7 -o OUT"),
    "recover": Scene("recover IN/torn.kvq -o OUT --force", THERE),
    "restore a folder": Scene("decompress IN/dump.kvq -o OUT"),
    "restore over a folder": Scene("decompress IN/dump.kvq -o DIR --force", {"dump": "olds"}),
    "restore over a file": Scene("decompress IN/dump.kvq -o OUT --force", THERE),
    "compress without links": Scene("compress IN/cache -o OUT", lacking=("link",)),
    "restore without exchange": Scene(
        "decompress IN/dump.kvq -o DIR --force", {"dump": "olds"}, lacking=("renameat2",)
    ),
    "verify": Scene("verify IN/cache.kvq --against IN/cache"),
    "inspect": Scene("inspect IN/cache.kvq --pages"),
    "stats": Scene("stats IN/cache.kvq --against IN/cache"),
}


def _no_link(*_: Any, **__: Any) -> NoReturn:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


LACKING: Mapping[str, Callable[[], None]] = {
    "link": lambda: setattr(os, "link", _no_link),
    "renameat2": lambda: setattr(renaming, "_renameat2", lambda *_: False),
}


@dataclass(frozen=True)
class Left:
    """What a run left: names and bytes below DIR, temporary files and folders, both streams."""

    state: Mapping[str, bytes | None]
    temporary: tuple[str, ...]
    aside: Mapping[str, bytes | None]  # what was replaced, where that takes two steps
    out: bytes
    err: str


class Stage:
    """Inputs, a folder for outputs and one for temporary files."""

    def __init__(self, root: Path) -> None:
        self.inputs, self.outputs, self.spools = (root / name for name in ("in", "out", "tmp"))
        for folder in (self.inputs, self.outputs, self.spools):
            folder.mkdir()
        self._err = root / "err"
        self._err.touch()
        (self.inputs / "cache").write_bytes(canonical_capture(tokens=12, channels=16))
        (self.inputs / "old").write_bytes(b"what was there")
        write_folder(self.inputs / "olds", {"a": b"what", "b/c": b"was there"})
        write_folder(self.inputs / "dump", {**vllm_files("vllm_cpu"), "notes": b"a word"})
        done("compress", self.inputs / "cache", "-T1")
        done("compress", self.inputs / "dump", "-T1", "--layout", "vllm_cpu")
        (self.inputs / "torn.kvq").write_bytes((self.inputs / "cache.kvq").read_bytes()[:-1])

    def clear(self, scene: Scene, *, all_of_it: bool = True) -> None:
        """As it is before the command; temporary files stay, unless all of it shall go."""
        for path in (*self.outputs.iterdir(), *self.spools.iterdir()):
            if all_of_it or not path.name.startswith((".kvq-", "kvq-")):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, source in scene.old.items():
            kind = shutil.copytree if (self.inputs / source).is_dir() else shutil.copyfile
            kind(self.inputs / source, self.outputs / name)

    def run(self, scene: Scene, *fault: Any) -> tuple[Traced, Left]:
        """The command, with a fault at one of its calls."""
        reading, out = os.pipe()
        stdin, feeding = os.pipe()
        if scene.stdin:
            os.write(feeding, (self.inputs / scene.stdin).read_bytes())
        os.close(feeding)
        err = os.open(self._err, os.O_CREAT | os.O_TRUNC | os.O_RDWR)

        def first() -> None:
            os.close(reading)
            os.environ["KVQ_TMPDIR"] = tempfile.tempdir = str(self.spools)
            become(self._arguments(scene), (stdin, out, err))
            for lacking in scene.lacking:
                LACKING[lacking]()

        try:
            ended = traced(answer, *fault, first=first)
        finally:
            for fd in (stdin, out, err):
                os.close(fd)
        with os.fdopen(reading, "rb") as pipe:
            printed = pipe.read()
        return ended, self._left(printed)

    def _arguments(self, scene: Scene) -> list[str]:
        line = scene.line if "inspect" in scene.line else f"{scene.line} -T 1"
        places = {"IN/": self.inputs, "OUT": self.outputs / "target", "DIR": self.outputs}
        for short, path in places.items():
            line = line.replace(short, f"{path}/" if short != "OUT" else str(path))
        return line.split()

    def _left(self, out: bytes) -> Left:
        state: dict[str, bytes | None] = {}
        aside: dict[str, bytes | None] = {}
        temporary = set(listing(self.spools))
        for name, data in listing(self.outputs).items():
            top, _, rest = name.partition("/")
            if OLD.fullmatch(top):
                aside[rest] = data
            elif top.startswith(".kvq-"):
                temporary.add(top)
            else:
                state[name] = data
        return Left(state, tuple(sorted(temporary)), aside, out, self._err.read_text())


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return Stage(tmp_path_factory.mktemp("stage"))


def undisturbed(stage, scene):
    """What the command does when nothing happens; said once to have all of it imported."""
    for _ in range(2):
        stage.clear(scene)
        before = stage._left(b"")
        ended, left = stage.run(scene)
    assert (ended.code, ended.left_open, left.temporary) == (0, False, ()), left.err
    return before, ended.calls, left


class Judge:
    """Whether what a fault left is what is promised."""

    def __init__(self, scene: Scene, before: Left, whole: Left) -> None:
        self.before, self.whole = before.state, whole
        # What a folder that is replaced holds, if it may be aside.
        inner = {name.partition("/")[2]: data for name, data in self.before.items()}
        self.aside = inner if "renameat2" in scene.lacking else None

    def __call__(self, call: tuple[str, int], fault: Fault, ended: Traced, left: Left) -> None:
        lost = left.state not in (self.before, self.whole.state)
        empty = not any(left.state.values())
        assert not lost or (self.aside and empty and left.aside == self.aside), "lost"
        assert not left.aside or self.aside
        assert self.whole.out.startswith(left.out)
        if ended.code is None and not ended.left_open:
            assert isinstance(fault, Signal)
            assert fault.number == signal.SIGKILL or left.state == self.before
            return
        assert not lost
        assert ended.code in self.codes(call, fault), left.err
        assert not ended.left_open
        if ended.code == 0:
            assert (left.state, left.out) == (self.whole.state, self.whole.out)
        if ended.code or not isinstance(fault, Refuse):  # what cannot be removed stays
            assert left.temporary == ()
        if call != ("write", 2):  # what could not be said is not there
            self.check_words(ended, left)

    @staticmethod
    def codes(call: tuple[str, int], fault: Fault) -> list[int]:
        """Exit codes that are right."""
        if isinstance(fault, Cut):
            return [0]
        if isinstance(fault, Signal):
            return [0, 130]
        if fault.errno == errno.EPIPE:
            return [141]
        if fault.errno == errno.EINTR and call[0] in WAITS:
            return [0]
        return [6] if call[0] in (*WRITES.values(), "fsync") else [0, 6]

    def check_words(self, ended: Traced, left: Left) -> None:
        """One line with an id, or what an undisturbed run says."""
        lines = [line for line in left.err.splitlines() if line not in self.whole.err.splitlines()]
        if ended.code == 6:
            (line,) = lines
            match = ERROR.fullmatch(line)
            assert match
            assert match[1] == "E601"
        else:
            assert lines == ["kvq: interrupted"] * (ended.code == 130)


def faults_of(call: tuple[str, int]) -> Iterator[str]:
    """What can happen to a call."""
    name, fd = call
    moves = name in READS.values() or name in WRITES.values()
    looks = name in READS.values() or name in LOOKS.values()
    fits = {
        "EIO late": name in (*RENAMES, "fsync", "close"),
        "ENOSPC": not looks,
        "half": moves,
        "SIGKILL late": not looks,
        "EPIPE": name in WRITES.values() and fd == 1,
    }
    yield from (title for title in FAULTS if fits.get(title, True))


@dataclass(frozen=True)
class Campaign:
    """One command under all its faults."""

    stage: Stage
    scene: Scene

    def run(self, chosen: Callable[[int, str], bool]) -> tuple[Counter[str], list[str]]:
        """Faults at the calls that are chosen: how many runs of each, and what was wrong."""
        before, calls, whole = undisturbed(self.stage, self.scene)
        judge, runs, wrong = Judge(self.scene, before, whole), Counter[str](), []
        for point, call in enumerate(calls):
            for title in filter(lambda title: chosen(point, title), faults_of(call)):
                self.stage.clear(self.scene)
                ended, left = self.stage.run(self.scene, point, FAULTS[title])
                if not ended.hit:
                    assert title == "half"  # of one byte there is no half
                    continue
                runs[title] += 1
                try:
                    assert ended.calls[: point + 1] == calls[: point + 1], "another way"
                    judge(call, FAULTS[title], ended, left)
                    if left.temporary or left.aside:
                        self.check_next(whole)
                except AssertionError as error:
                    what = f"exit {ended.code}, {left.temporary}, {left.err!r}"
                    wrong.append(f"{title} at call {point}, {call}: {str(error)[:100]}: {what}")
        return runs, wrong

    def check_next(self, whole: Left) -> None:
        """What was left does not keep the next run from doing its work, and goes with it."""
        self.stage.clear(self.scene, all_of_it=False)
        again, left = self.stage.run(self.scene)
        assert again.code == 0, left.err
        assert replace(left, aside={}) == whole, f"next: {left}"


@pytest.mark.parametrize("name", SCENES)
def test_some_calls(name, stage):
    """One in a hundred of what can happen to each of its calls; all of it is long."""

    def chosen(point: int, title: str) -> bool:
        return zlib.crc32(f"{name} {point} {title}".encode()) % 100 == 0

    _, wrong = Campaign(stage, SCENES[name]).run(chosen)
    assert wrong == []


@pytest.mark.long
@pytest.mark.parametrize("name", SCENES)
def test_every_call(name, stage):
    """Each command survives each fault at each of its calls."""
    runs, wrong = Campaign(stage, SCENES[name]).run(lambda point, title: True)
    assert wrong == []
    assert runs["EIO"] > 20

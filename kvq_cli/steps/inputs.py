"""inputs: what a path on the command line opens, and where its result goes by default."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from kvq_cli.capture import Capture, Source, check_headers, open_capture, open_source
from kvq_cli.capture.widened import Widened
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import UsageError
from kvq_cli.steps.facts import with_user_facts
from kvq_cli.steps.hints import check_hints, parted
from kvq_cli.steps.output import STDOUT, Output, spool

SUFFIX: Final = ".kvq"
STDIN: Final = "standard input"


@contextmanager
def byte_source(path: Path) -> Iterator[ByteSource]:
    if path == STDOUT:
        yield ByteSource(0, STDIN, owned=False)
        return
    with ByteSource.open(path) as source:
        yield source


@contextmanager
def open_reader(path: Path) -> Iterator[Reader]:
    with byte_source(path) as source:
        yield Reader(source)


@contextmanager
def damaged_reader(path: Path, target: Path) -> Iterator[Reader]:
    """A reader of what may be damaged, that goes back and forth; a pipe is spooled."""
    with ExitStack() as stack:
        source = stack.enter_context(byte_source(path))
        if not source.seekable:
            source = ByteSource(stack.enter_context(_spooled(target)), STDIN, owned=False)
        yield Reader(source, damaged=True)


@contextmanager
def _spooled(target: Path) -> Iterator[int]:
    """Standard input as a file beside the target."""
    with spool(target) as fd:
        _fill(Output(fd, "spool", seekable=True))
        yield fd


@contextmanager
def capture_input(
    path: Path | Capture,
    layout: str | None = None,
    meta: Mapping[str, str] | None = None,
    *,
    shape: str | Path | None = None,
    widen: bool = False,
    target: Path = STDOUT,
) -> Iterator[Capture]:
    """A capture, with what the user says of it; its 8-bit floats as F16, if it shall be wide."""
    if isinstance(path, Capture):
        yield _told(path, meta or {}, shape)
        return
    with source_input(path, target) as source:
        if not widen:
            yield told_capture(source, layout, meta or {}, shape)
            return
        wide = wide_source(source)
        capture = told_capture(wide, layout, meta or {}, shape)
        what = f"{' and '.join(wide.names)} taken as F16, which counts as the source, of twice the"
        yield replace(capture, notes=(*capture.notes, f"{what} bytes, and is what is restored"))


def wide_source(source: Source) -> Widened:
    """The source with its 8-bit floats as F16; UsageError where it has none."""
    check_headers(source.files)
    wide = Widened(source)
    if not wide.names:
        raise UsageError("E101", "--widen: no tensor is of 8-bit floats")
    return wide


def told_capture(
    source: Source,
    layout: str | None,
    meta: Mapping[str, str],
    shape: str | Path | None = None,
) -> Capture:
    """The capture in an open source, with what the user says of it."""
    return _told(open_capture(source, layout, parted(meta)[0]), meta, shape)


def _told(capture: Capture, meta: Mapping[str, str], shape: str | Path | None) -> Capture:
    hints, facts = parted(meta)
    check_hints(capture, hints)
    return with_user_facts(capture, facts, Path(shape) if shape else None)


@contextmanager
def source_input(path: Path, target: Path = STDOUT) -> Iterator[Source]:
    """An open source; a pipe is spooled, because pages come in another order than its bytes."""
    with ExitStack() as stack:
        if path != STDOUT:
            yield stack.enter_context(open_source(path))
            return
        fd = 0
        if not stat.S_ISREG(os.fstat(0).st_mode):
            fd = stack.enter_context(_spooled(target))
        yield stack.enter_context(Source(fd, STDIN))


def default_target(path: Path) -> Path:
    if path == STDOUT:
        return STDOUT
    whole = path if path.name else path.resolve()
    return whole.with_name(whole.name + SUFFIX)


def default_recovered(path: Path) -> Path:
    """Beside the container, with .recovered before .kvq."""
    if path == STDOUT:
        return STDOUT
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}.recovered{SUFFIX}")


def default_restored(path: Path) -> Path:
    """The container's name without .kvq."""
    if path == STDOUT:
        return STDOUT
    if path.suffix != SUFFIX:
        raise UsageError("E101", f"{path} does not end in {SUFFIX}; name the output with -o")
    return path.with_suffix("")


def _fill(output: Output) -> None:
    while piece := os.read(0, 1 << 20):
        output.write(piece)

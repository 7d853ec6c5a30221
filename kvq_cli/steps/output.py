"""output: a file that appears complete or not at all, or standard output.

A temporary file in the target's folder is written, synced, given the mode that umask asks
for, and put in place: by `link`, which fails where the target exists, or by `replace` where
overwriting was asked for. The folder is synced last.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvq_cli.digest import Buffer
from kvq_cli.errors import FileError

STDOUT: Final = Path("-")
PREFIX: Final = ".kvq-"


class Output:
    """Where bytes go, front to back or by offset."""

    def __init__(self, fd: int, name: str, *, seekable: bool) -> None:
        self.fd = fd
        self.name = name
        self.seekable = seekable

    def write(self, buffer: Buffer) -> None:
        """Append, whole."""
        view = memoryview(buffer).cast("B")
        while view:
            view = view[os.write(self.fd, view) :]


@contextmanager
def open_output(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> Iterator[Output]:
    """The output at `path`, in place when the block ends well and gone when it does not."""
    if path == STDOUT:
        if os.isatty(1) and not force:
            raise FileError("E105", "binary data is not written to a terminal; use -o or --force")
        yield Output(1, "standard output", seekable=False)
        return
    check_target(path, force=force, inputs=inputs)
    try:
        fd, temporary = tempfile.mkstemp(prefix=PREFIX, suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {error.strerror}") from error
    try:
        try:
            yield Output(fd, str(path), seekable=True)
            _put_in_place(fd, temporary, path, force=force)
        finally:
            os.close(fd)
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def check_target(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a target that is an input, a folder, or there already."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        for source in inputs:
            if source != STDOUT and source.exists() and path.exists() and path.samefile(source):
                raise FileError("E104", f"output {path} is the input")
        if path.is_dir():
            raise FileError("E601", f"cannot write {path}: is a directory")
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {error.strerror}") from error
    if not force:
        raise FileError("E103", f"output {path} exists; use --force to replace it")


@contextmanager
def spool() -> Iterator[int]:
    """An unlinked temporary file, for what cannot be streamed; in KVQ_TMPDIR if set."""
    with tempfile.TemporaryFile(prefix=PREFIX, dir=os.environ.get("KVQ_TMPDIR")) as file:
        yield file.fileno()


def copy_to(fd: int, output: Output) -> None:
    """A spooled file to an output that only goes forward."""
    at = 0
    while piece := os.pread(fd, 1 << 20, at):
        output.write(piece)
        at += len(piece)


def _put_in_place(fd: int, temporary: str, path: Path, *, force: bool) -> None:
    umask = os.umask(0)
    os.umask(umask)
    os.fchmod(fd, 0o666 & ~umask)
    os.fsync(fd)
    if force:
        os.replace(temporary, path)
    else:
        try:
            os.link(temporary, path)
        except FileExistsError as error:
            raise FileError("E103", f"output {path} exists; use --force to replace it") from error
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

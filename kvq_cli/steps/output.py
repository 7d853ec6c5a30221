"""output: a file that appears complete or not at all, or standard output.

A file in a temporary folder beside the target is written, synced, given the mode that umask
asks for, and put in place: by `link`, which fails where the target exists, or by `replace`
where overwriting was asked for. The folder of the target is synced last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvq_cli.capture.source import behind
from kvq_cli.digest import Buffer
from kvq_cli.errors import FileError, reason
from kvq_cli.steps.renaming import rename_new
from kvq_cli.steps.temporary import PREFIX, asked_mode, temporary

STDOUT: Final = Path("-")
FLUSH: Final = 32 << 20  # bytes
SYNC_FILE_RANGE_WRITE: Final = 2
NO_LINKS: Final = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Output:
    """Where bytes go, front to back or by offset."""

    def __init__(self, fd: int, name: str, *, seekable: bool, lasting: bool = False) -> None:
        self.fd = fd
        self.name = name
        self.seekable = seekable
        self._lasting = lasting  # will be synced
        self._waiting = 0  # bytes that the disk has not been told of

    def write(self, *buffers: Buffer) -> None:
        """Append all of them, whole."""
        views: Sequence[memoryview] = [memoryview(buffer).cast("B") for buffer in buffers]
        left = sum(len(view) for view in views)
        while left:
            count = os.writev(self.fd, views)
            views = behind(views, count)
            left -= count
            self.wrote(count)

    def wrote(self, count: int) -> None:
        """So many more bytes are there: the disk begins, so that the last fsync has little left."""
        self._waiting += count
        if self._lasting and self._waiting >= FLUSH:
            _begin_writing(self.fd)
            self._waiting = 0


def _begin_writing(fd: int) -> None:
    """Linux's sync_file_range, which waits for nothing; elsewhere the last fsync does it all.

    posix_fadvise could do it too, but drops the file from memory, and `verify` often comes next.
    """
    begin = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if begin is not None:
        whole = ctypes.c_int64(0)
        begin(fd, whole, whole, SYNC_FILE_RANGE_WRITE)


@contextmanager
def open_output(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> Iterator[Output]:
    """The output at `path`, in place when the block ends well and gone when it does not."""
    check_output(path, force=force, inputs=inputs)
    if path == STDOUT:
        yield Output(1, "standard output", seekable=False)
        return
    if _is_device(path):
        yield from _device(path, force=force)
        return
    if force:
        # The file that a link names is replaced, as by a shell's >, and not the link.
        path = Path(os.path.realpath(path))
    try:
        with temporary(path) as name:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                yield Output(fd, str(path), seekable=True, lasting=True)
                _put_in_place(fd, name, path, force=force)
            finally:
                os.close(fd)
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {reason(error)}") from error


def _refuse_terminal(fd: int, *, force: bool) -> None:
    if os.isatty(fd) and not force:
        raise FileError("E105", "binary data is not written to a terminal; use -o or --force")


def _is_device(path: Path) -> bool:
    """A device or a named pipe is written to, never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _device(path: Path, *, force: bool) -> Iterator[Output]:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOCTTY)
        try:
            _refuse_terminal(fd, force=force)
            yield Output(fd, str(path), seekable=False)
        finally:
            os.close(fd)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {reason(error)}") from error


def check_output(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse an output before anything is read for it."""
    if path == STDOUT:
        _refuse_terminal(1, force=force)
    elif not _is_device(path):
        _check_target(path, force=force, inputs=inputs)


def _check_target(path: Path, *, force: bool, inputs: tuple[Path, ...]) -> None:
    """Refuse a target that is an input, a folder, or there already."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        for source in inputs if path.exists() else ():
            found = os.fstat(0) if source == STDOUT else source.stat()
            if os.path.samestat(found, path.stat()):
                raise FileError("E104", f"output {path} is the input")
        if path.is_dir():
            raise FileError("E601", f"cannot write {path}: is a directory")
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {reason(error)}") from error
    if not force:
        raise FileError("E103", f"output {path} exists; use --force to replace it")


@contextmanager
def spool(target: Path = STDOUT) -> Iterator[int]:
    """An unlinked temporary file, for what cannot be streamed: in KVQ_TMPDIR or by the target."""
    beside = target.parent if target != STDOUT and not _is_device(target) else None
    with tempfile.TemporaryFile(prefix=PREFIX, dir=os.environ.get("KVQ_TMPDIR") or beside) as file:
        yield file.fileno()


def copy_to(fd: int, output: Output) -> None:
    """A spooled file to an output that only goes forward."""
    at = 0
    while piece := os.pread(fd, 1 << 20, at):
        output.write(piece)
        at += len(piece)


def _put_in_place(fd: int, name: Path, path: Path, *, force: bool) -> None:
    os.fchmod(fd, asked_mode(0o666))
    os.fsync(fd)
    try:
        if force:
            name.replace(path)
        else:
            _link(name, path)
    except FileExistsError as error:
        raise FileError("E103", f"output {path} exists; use --force to replace it") from error
    sync_folder(path.parent)


def _link(name: Path, path: Path) -> None:
    """Another name for a file, which nobody has; where there is but one name, that."""
    try:
        path.hardlink_to(name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        rename_new(name, path)


def sync_folder(path: Path) -> None:
    """Make the names in a folder last."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

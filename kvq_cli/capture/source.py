"""source: an open capture file, read by offset.

Spec: formats/capture.md, section "Reading".

Data comes through preadv into the caller's buffers, never through a mapping: a mapped file
that somebody truncates kills the process. There is no file position, so threads share a
Source. A file that changes while it is read is refused.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Self, TypeAlias

from kvq_cli.capture.files import Files, one_file
from kvq_cli.capture.foreign import HEAD, refuse_foreign
from kvq_cli.capture.header import Header, header_size, parse_header, shown
from kvq_cli.errors import CaptureError, FileError

Writable: TypeAlias = bytearray | memoryview


class Source:
    """A regular file with a safetensors header; a context manager."""

    __slots__ = ("_fd", "_state", "files", "header", "path")

    files: Files

    def __init__(self, file: str | os.PathLike[str] | int, path: str | None = None) -> None:
        """Open a path, or take a copy of an open descriptor; `path` is its name in messages."""
        self.path = path or ("-" if isinstance(file, int) else os.fspath(file))
        self._fd = -1
        try:
            self._fd = _open(file)
            self._state = _state(self._fd)
            self._check_regular()
            self.header = self._read_header()
            self.files = one_file(self.header)
        except OSError as error:
            self.close()
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise

    def read_into(self, offset: int, *buffers: Writable) -> None:
        """Fill the buffers, one behind the other; CaptureError E205 if the file ends before."""
        views: Sequence[memoryview] = [memoryview(buffer).cast("B") for buffer in buffers]
        left = sum(len(view) for view in views)
        while left:
            try:
                count = os.preadv(self._fd, views, offset)
            except OSError as error:
                raise self._failed(error) from error
            if count == 0:
                raise CaptureError("E205", f"file ends at byte {offset}, {left} more expected")
            views = behind(views, count)
            offset, left = offset + count, left - count

    def check_unchanged(self) -> None:
        """CaptureError E205 if size, time or inode differ from those at opening."""
        try:
            state = _state(self._fd)
        except OSError as error:
            raise self._failed(error) from error
        for name, before, now in zip(
            ("inode", "device", "size", "time"), self._state, state, strict=True
        ):
            if before != now:
                raise CaptureError("E205", f"{name} was {before} and is now {now}")

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_regular(self) -> None:
        mode = os.fstat(self._fd).st_mode
        if not stat.S_ISREG(mode):
            kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
            raise FileError("E601", f"{shown(self.path)}: {kind}")

    def _read_header(self) -> Header:
        file_size = os.fstat(self._fd).st_size
        prefix = bytearray(min(HEAD, file_size))
        self.read_into(0, prefix)
        refuse_foreign(bytes(prefix), self.path)
        raw = bytearray(header_size(bytes(prefix), file_size))
        self.read_into(0, raw)
        return parse_header(bytes(raw), file_size)

    def _failed(self, error: OSError) -> FileError:
        return FileError("E601", f"{shown(self.path)}: {(error.strerror or str(error)).lower()}")


def behind(views: Sequence[memoryview], count: int) -> Sequence[memoryview]:
    """What is left of the views behind their first `count` bytes."""
    for at, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[at + 1 :]]
        count -= len(view)
    return []


def _open(file: str | os.PathLike[str] | int) -> int:
    if isinstance(file, int):
        return os.dup(file)
    # Without O_NONBLOCK, opening a named pipe that nobody writes to would hang.
    return os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _state(fd: int) -> tuple[int, int, int, int]:
    found = os.fstat(fd)
    return (found.st_ino, found.st_dev, found.st_size, found.st_mtime_ns)

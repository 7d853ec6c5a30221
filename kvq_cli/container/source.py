"""source: where a container's bytes come from: a file, or a pipe that only goes forward."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, Self

from kvq_cli.errors import ContainerError, FileError, reason

PIECE: Final = 1 << 20  # a pipe is never asked for more at once than it may really hold


class ByteSource:
    """Bytes by offset. A pipe gives them once, in order."""

    def __init__(self, fd: int, name: str, *, owned: bool) -> None:
        self.name = name
        self._fd = fd
        self._owned = owned
        status = os.fstat(fd)
        self.size = status.st_size if stat.S_ISREG(status.st_mode) else None
        self._position = 0

    @classmethod
    def open(cls, path: Path) -> Self:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return cls(fd, str(path), owned=True)
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise FileError("E601", f"cannot open: {reason(error)}") from error

    @property
    def seekable(self) -> bool:
        return self.size is not None

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes at `offset`, fewer only where the source ends."""
        try:
            return self._from_file(offset, length) if self.seekable else self._next(offset, length)
        except OSError as error:
            raise FileError("E601", f"cannot read: {reason(error)}") from error

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Once: by then the number may be another file's."""
        if self._owned:
            self._owned = False
            os.close(self._fd)

    def __exit__(self, *_: object) -> None:
        self.close()

    def _from_file(self, offset: int, length: int) -> bytes:
        # Allocate what the file can hold, not what a damaged length asks for.
        length = min(length, (self.size or 0) - offset)
        if length <= 0:
            return b""  # the offset may be beyond what the system can count
        data = os.pread(self._fd, length, offset)
        while 0 < len(data) < length:
            more = os.pread(self._fd, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def _next(self, offset: int, length: int) -> bytes:
        if offset != self._position:
            raise ContainerError("E304", "a pipe cannot be read out of order", offset)
        pieces = []
        while length:
            piece = os.read(self._fd, min(length, PIECE))
            if not piece:
                break
            pieces.append(piece)
            length -= len(piece)
            self._position += len(piece)
        return b"".join(pieces)


class Forward:
    """Bytes in file order, asked of the source in large pieces; works on a pipe as on a file."""

    def __init__(self, source: ByteSource, at: int) -> None:
        self._source = source
        self._begin = at
        self._piece = memoryview(b"")

    def take(self, at: int, length: int) -> memoryview:
        """`length` bytes at `at`, not before what was taken; fewer only where the source ends."""
        start = at - self._begin
        if len(self._piece) - start < length:
            left = self._piece[start:]
            more = self._source.read(at + len(left), max(length - len(left), PIECE))
            self._piece = memoryview(b"".join([left, more]) if left else more)
            self._begin, start = at, 0
        return self._piece[start : start + length]

"""memory: bytes as kvq's readers want them, without a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Header
from kvq_cli.capture.source import Source, Writable
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import CaptureError, ContainerError

MOST: Final = 1 << 20  # bytes that a capture without data gives in one read


class Bytes(ByteSource):
    """A container in memory; as a pipe it gives its bytes once, in order."""

    def __init__(self, data: bytes, *, pipe: bool = False) -> None:
        self.name = "memory"
        self.size = None if pipe else len(data)
        self._data = data
        self._position = 0

    def read(self, offset: int, length: int) -> bytes:
        if self.size is None:
            if offset != self._position:
                raise ContainerError("E304", "a pipe cannot be read out of order", offset)
            self._position = min(offset + length, len(self._data))
        return self._data[offset : offset + length] if offset >= 0 else b""

    def close(self) -> None:
        """Nothing is open."""


class Zeros(Source):
    """A capture that has a header, and zeros for data."""

    __slots__ = ()

    def __init__(self, header: Header, files: Files) -> None:
        self.path = "memory"
        self._fd = -1
        self.header = header
        self.files = files

    def read_into(self, offset: int, *buffers: Writable) -> None:
        views: Sequence[memoryview] = [memoryview(buffer).cast("B") for buffer in buffers]
        wanted = sum(map(len, views))
        if wanted > MOST or offset + wanted > self.files.size:
            raise CaptureError("E205", f"{wanted} bytes at {offset} are not there")
        for view in views:
            view[:] = bytes(len(view))

    def check_unchanged(self) -> None:
        """It cannot change."""

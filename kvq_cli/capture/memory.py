"""memory: a canonical capture that lies in memory, as a source like any other.

Spec: formats/capture.md, section "canonical".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from kvq_cli.capture.files import one_file
from kvq_cli.capture.source import Source, Writable
from kvq_cli.capture.writer import new_header
from kvq_cli.digest import Buffer
from kvq_cli.errors import CaptureError
from kvq_cli.planes import raw_bytes


class Memory(Source):
    """Tensors by name: a dtype of safetensors, and an array of its bits."""

    __slots__ = ("_parts",)

    def __init__(
        self, tensors: Mapping[str, tuple[str, NDArray[Any]]], metadata: Mapping[str, str]
    ) -> None:
        self.path, self._fd = "memory", -1
        told = [(name, dtype, array.shape) for name, (dtype, array) in tensors.items()]
        self.header = new_header(told, metadata)
        self.files = one_file(self.header)
        parts: list[tuple[int, Buffer]] = [(0, self.header.raw)]
        parts += ((each.start, raw_bytes(tensors[each.name][1])) for each in self.header.tensors)
        self._parts: Sequence[tuple[int, memoryview]] = [
            (at, memoryview(data).cast("B")) for at, data in parts if len(data)
        ]

    def read_into(self, offset: int, *buffers: Writable) -> None:
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            self._fill(offset, view)
            offset += len(view)

    def check_unchanged(self) -> None:
        """Nobody else has it."""

    def _fill(self, offset: int, view: memoryview) -> None:
        left = view
        for at, data in self._parts:
            if left and at <= offset < at + len(data):
                piece = data[offset - at : offset - at + len(left)]
                left[: len(piece)] = piece
                offset, left = offset + len(piece), left[len(piece) :]
        if left:
            raise CaptureError("E205", f"memory ends at byte {offset}, {len(left)} more expected")

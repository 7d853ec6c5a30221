"""widened: a capture whose 8-bit floats are taken as F16, which holds each of them exactly.

Spec: formats/capture.md, section "8-bit floats".

    F8_E4M3   s eeee mmm     exponents 0 to 15, bias 7; s 1111 111 is NaN, there is no infinity
    F8_E5M2   s eeeee mm     the upper byte of an F16

What lies where a reader looks is computed as it is read: two bytes for each one in the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import numpy as np

from kvq_cli.capture.files import File, Files
from kvq_cli.capture.header import Tensor
from kvq_cli.capture.source import Source, Writable
from kvq_cli.capture.writer import new_header
from kvq_cli.words import DType


def _of_e4m3(code: int) -> int:
    """The bits of the F16 that an F8_E4M3 code is."""
    sign, exponent, mantissa = (code & 0x80) << 8, code >> 3 & 15, code & 7
    if (exponent, mantissa) == (15, 7):
        return sign | 0x7E00
    if exponent == 0:
        number = np.float16(mantissa * 2.0**-9)
        return sign | int(number.view(np.uint16))
    return sign | (exponent + 8) << 10 | mantissa << 7


CODES: Final = {
    "F8_E4M3": np.array([_of_e4m3(code) for code in range(256)], "<u2"),
    "F8_E5M2": np.arange(256, dtype="<u2") << np.uint16(8),
}


class Widened(Source):
    """A source as it would be if its 8-bit floats had been written as F16."""

    __slots__ = ("_inner", "_pairs", "_starts", "names")

    def __init__(self, inner: Source) -> None:
        self._inner, self.path, self._fd = inner, inner.path, -1
        self.files = Files(_file(inner.files, number) for number in range(len(inner.files.files)))
        named = {(each.file, each.name): each for each in inner.files.tensors}
        self._pairs = [(each, named[each.file, each.name]) for each in self.files.tensors]
        self._starts = [each.start for each, _ in self._pairs]
        self.names = sorted({one.dtype for _, one in self._pairs} & CODES.keys())

    def read_into(self, offset: int, *buffers: Writable) -> None:
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            for piece, at, tensor in self._pieces(offset, view):
                self._read(piece, at, tensor)
            offset += len(view)

    def check_unchanged(self) -> None:
        self._inner.check_unchanged()

    def close(self) -> None:
        self._inner.close()

    def _pieces(self, offset: int, view: memoryview) -> Iterator[tuple[memoryview, int, Tensor]]:
        """What is to be filled from each tensor, and from which of its bytes as they are told."""
        at = bisect_right(self._starts, offset) - 1
        while view:
            told, tensor = self._pairs[at]
            count = min(len(view), told.stop - offset)
            if count:
                yield view[:count], offset - told.start, tensor
            view, offset, at = view[count:], offset + count, at + 1

    def _read(self, view: memoryview, at: int, tensor: Tensor) -> None:
        codes = CODES.get(tensor.dtype)
        if codes is None:
            self._inner.read_into(tensor.start + at, view)
            return
        first, last = at // 2, (at + len(view) + 1) // 2  # a reader may begin inside an element
        data = bytearray(last - first)
        self._inner.read_into(tensor.start + first, data)
        wide = codes[np.frombuffer(data, np.uint8)].view(np.uint8)
        view[:] = wide[at % 2 :][: len(view)].data


def _file(files: Files, number: int) -> File:
    file = files.files[number]
    if file.header is None:
        return file
    tensors = [
        (each.name, str(DType.F16) if each.dtype in CODES else each.dtype, each.shape)
        for each in file.header.tensors
    ]
    kept = {key: text for key, text in file.header.metadata.items() if key != "dtype"}
    header = new_header(tensors, kept)
    return File(file.name, header.raw, header)

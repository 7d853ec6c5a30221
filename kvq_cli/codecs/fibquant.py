"""fibquant: rotated rows in blocks of coordinates, each the nearest of N codewords.

Spec: formats/codecs/fibquant.md, revision 1.

    index   of the codeword, log2(N) bits: the lower 8 in `codes`, others in `tops`
    norm    of the row; with norm_correction such that the restored row has it

A codebook is one that comes with kvq, or a table of the container.
"""

from __future__ import annotations

from dataclasses import field
from functools import cache, lru_cache
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.codebooks import CHANNELS, SIZES, Codebook, codebook
from kvq_cli.codecs.rotated import Rotated, UnitRows
from kvq_cli.errors import CodecError
from kvq_cli.numerics.exact import product, squared
from kvq_cli.numerics.levels import ONE
from kvq_cli.numerics.nearest import gather, grid
from kvq_cli.numerics.packing import (
    check_padding,
    pack_codes,
    row_bytes,
    take_codes,
    unpack_codes,
)
from kvq_cli.numerics.paley import least_order
from kvq_cli.numerics.rotation import LARGEST
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record
from kvq_cli.words import TableSpec

BUILTIN: Final = "builtin"
LOW: Final = 8  # bits of an index that stand in `codes`


@record
class Fibquant(Rotated):
    """What a block is, and how many codewords there are for it."""

    name: ClassVar[str] = "fibquant"
    revision: ClassVar[int] = 1

    block: int = field(default=4, metadata={"minimum": 2, "maximum": 64})
    size: int = field(default=256, metadata={"minimum": 2, "maximum": 1 << 16})
    codebook: str = field(default=BUILTIN, metadata={"pattern": "^(builtin|blake3:[0-9a-f]{64})$"})
    norm_correction: bool = True

    def __post_init__(self) -> None:
        for name, number in (("block", self.block), ("size", self.size)):
            if number & (number - 1):
                raise ValueError(f"{name} {number} is no power of two")
        if self.codebook == BUILTIN and (self.block, self.size) not in SIZES:
            pairs = ", ".join(f"{block} and {size}" for block, size in SIZES)
            raise ValueError(
                f"no codebook has block {self.block} and size {self.size}, only {pairs}"
            )

    @property
    def unit(self) -> float:
        """Of the coordinates of codewords."""
        return float(1 << grid(self.block))

    @property
    def most_channels(self) -> int:
        return max(CHANNELS) if self.codebook == BUILTIN else LARGEST

    def order_for(self, channels: int) -> int:
        if self.codebook == BUILTIN:
            return min(order for order in CHANNELS if order >= channels)
        order = least_order(channels)
        while order % self.block:
            order = least_order(order + 1)
        return order

    def tables(self) -> tuple[TableSpec, ...]:
        if self.codebook == BUILTIN:
            return ()
        return (TableSpec("<i2", (self.size, self.block), self.codebook),)

    def code_planes(self, rows: tuple[int, int], order: int) -> Layout:
        blocks, bits = order // self.block, self._bits
        low = Plane("codes", "|u1", (*rows, row_bytes(blocks, min(bits, LOW))), "HTB")
        if bits <= LOW:
            return (low,)
        return low, Plane("tops", "|u1", (*rows, row_bytes(blocks, bits - LOW)), "HTB")

    def place(
        self, unit: UnitRows, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> NDArray[np.float64]:
        count, order = unit.z.shape
        book = self._book(order, scratch)
        blocks = scratch.take("fibquant.blocks", unit.z.shape, np.float32)
        np.multiply(unit.z, np.float32(self.unit / ONE), out=blocks)
        shape = (count, order // self.block)
        kind = np.uint8 if self._bits <= LOW else np.uint16
        indices = scratch.take("fibquant.indices", shape, kind)
        book.search(blocks.reshape(-1, self.block), indices.reshape(-1), scratch)
        self._pack(indices, planes, scratch)
        if not self.norm_correction:
            return unit.lengths()
        weights = scratch.take("fibquant.weights", shape, np.float64)
        np.take(_squares(book), indices, out=weights, mode="clip")
        sums = product(weights, np.ones(shape[1]))
        return unit.lengths(order * (self.unit * self.unit) / np.maximum(sums, 1))

    def vectors(self, planes: Planes, order: int, scratch: Scratch) -> NDArray[np.float32]:
        book = self._book(order, scratch)
        indices = self._unpack(planes, order // self.block, scratch)
        out = scratch.take("fibquant.vectors", (len(indices), order), np.float32)
        gather(indices.reshape(-1), book.points, out.reshape(-1, self.block), scratch)
        return out

    def check_codes(self, planes: Planes, order: int) -> None:
        blocks, low = order // self.block, min(self._bits, LOW)
        check_padding(planes["codes"], low, blocks, self.name)
        if "tops" in planes:
            check_padding(planes["tops"], self._bits - LOW, blocks, self.name)

    def peak(self, order: int, scratch: Scratch) -> float:
        return float(np.abs(self._book(order, scratch).points).max())

    def _book(self, order: int, scratch: Scratch) -> Codebook:
        if self.codebook == BUILTIN:
            return codebook(order, self.block, self.size)
        return _of_table(scratch.tables[self.codebook].tobytes(), self.block)

    @property
    def _bits(self) -> int:
        return self.size.bit_length() - 1

    def _pack(
        self, indices: NDArray[Any], planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> None:
        codes = take_codes((1, *indices.shape), scratch)
        held = codes[0, :, : indices.shape[1]]
        if self._bits > LOW:
            np.right_shift(indices, LOW, out=held, casting="unsafe")
            pack_codes(codes, self._bits - LOW, planes["tops"][None], scratch)
        np.copyto(held, indices, casting="unsafe")
        pack_codes(codes, min(self._bits, LOW), planes["codes"][None], scratch)

    def _unpack(self, planes: Planes, blocks: int, scratch: Scratch) -> NDArray[Any]:
        codes = unpack_codes(planes["codes"][None], min(self._bits, LOW), blocks, scratch)[0]
        if self._bits <= LOW:
            return np.ascontiguousarray(codes)
        indices = scratch.take("fibquant.indices", codes.shape, np.uint16)
        np.copyto(indices, codes)
        tops = unpack_codes(planes["tops"][None], self._bits - LOW, blocks, scratch)[0]
        wide = scratch.take("fibquant.tops", codes.shape, np.uint16)
        np.left_shift(tops, LOW, out=wide, dtype=np.uint16)
        np.bitwise_or(indices, wide, out=indices)
        return indices


@lru_cache(maxsize=8)
def _of_table(data: bytes, block: int) -> Codebook:
    try:
        return Codebook.of(np.frombuffer(data, "<i2").reshape(-1, block).copy())
    except ValueError as error:
        raise CodecError("E502", f"fibquant: a codebook is not possible: {error}") from error


@cache
def _squares(book: Codebook) -> NDArray[np.float64]:
    """The squared length of every codeword, an integer."""
    return squared(book.codewords.astype(np.float64))

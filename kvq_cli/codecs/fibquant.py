"""fibquant: rotated rows in blocks of coordinates, each the nearest of N codewords.

Spec: formats/codecs/fibquant.md, revision 1.

    index   of the codeword, log2(N) bits: the lower 8 in `codes`, others in `tops`
    norm    of the row; with norm_correction such that the restored row has it
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.codebooks import CHANNELS, SIZES, Codebook, codebook
from kvq_cli.codecs.rotated import Rotated, UnitRows
from kvq_cli.numerics.exact import product, squared
from kvq_cli.numerics.levels import ONE
from kvq_cli.numerics.nearest import gather, grid
from kvq_cli.numerics.packing import check_padding, pack_codes, row_bytes, take_codes, unpack_codes
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.planes import Layout, Plane, Planes

LOW: Final = 8  # bits of an index that stand in `codes`


@dataclass(frozen=True, slots=True)
class Fibquant(Rotated):
    """What a block is, and how many codewords there are for it."""

    name: ClassVar[str] = "fibquant"
    revision: ClassVar[int] = 1
    most_channels: ClassVar[int] = max(CHANNELS)

    block: Literal[2, 4, 8, 16] = 4
    size: Literal[32, 64, 256, 1024, 4096] = 256
    norm_correction: bool = True

    def __post_init__(self) -> None:
        if (self.block, self.size) not in SIZES:
            pairs = ", ".join(f"{block} and {size}" for block, size in SIZES)
            raise ValueError(
                f"no codebook has block {self.block} and size {self.size}, only {pairs}"
            )

    @property
    def unit(self) -> float:
        """Of the coordinates of codewords."""
        return float(1 << grid(self.block))

    def order_for(self, channels: int) -> int:
        return min(order for order in CHANNELS if order >= channels)

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
        book = codebook(order, self.block, self.size)
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
        book = codebook(order, self.block, self.size)
        indices = self._unpack(planes, order // self.block, scratch)
        out = scratch.take("fibquant.vectors", (len(indices), order), np.float32)
        gather(indices.reshape(-1), book.points, out.reshape(-1, self.block), scratch)
        return out

    def check_codes(self, planes: Planes, order: int) -> None:
        blocks, low = order // self.block, min(self._bits, LOW)
        check_padding(planes["codes"], low, blocks, self.name)
        if "tops" in planes:
            check_padding(planes["tops"], self._bits - LOW, blocks, self.name)

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


@cache
def _squares(book: Codebook) -> NDArray[np.float64]:
    """The squared length of every codeword, an integer."""
    return squared(book.codewords.astype(np.float64))

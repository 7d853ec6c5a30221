"""levels: coordinates of unit vectors as codes of 1 to 8 bits, and back.

Spec: formats/codecs/README.md, section "Levels".

    z        a coordinate times sqrt(order), in units of 2**-10: an i16
    level    2**(b - 1) positive ones, in units of 2**-12, from a frozen table; and their negatives
    code     2**(b - 1) + m for z ≥ 0, else 2**(b - 1) - 1 - m, m the thresholds that |z| passes
    weight   of a code: the square of its level, in units of 2**-10

A packed byte holds several codes; one look-up gives the levels, or the weights, of all of them.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.exact import count_sum, product
from kvq_cli.numerics.packing import copy_bytes, unpack_codes
from kvq_cli.numerics.paley import STEP
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

ONE: Final = 1024.0  # z of a coordinate that is 1 / sqrt(order)
UNIT: Final = 4096.0  # a level of the same size
MAX_BITS: Final = 8
_ROW: Final = (1 << MAX_BITS) - 1  # levels of all widths for one order
_COMPARED: Final = 4  # bits up to which comparing with every threshold is fastest
_TOGETHER: Final = {1: 8, 2: 4, 3: 4, 4: 2}  # codes of a look-up, one for other widths


@record(eq=False)
class Levels:
    """The quantiser of one order and width."""

    order: int
    bits: int
    positive: NDArray[np.int16]  # levels, ascending
    thresholds: tuple[int, ...]  # of |z|
    values: NDArray[Any]  # level of every code, as many side by side as a look-up gives
    weights: NDArray[np.float32]  # sums of weights of as many codes
    codes: NDArray[np.uint8] | None  # code of every z, by its bits

    @property
    def row_bytes(self) -> int:
        """Bytes of a packed row: orders are multiples of 8."""
        return self.order // 8 * self.bits

    def code(self, z: NDArray[np.int16], out: NDArray[np.uint8], scratch: Scratch) -> None:
        """The codes of coordinates; uses z up."""
        if self.codes is not None:
            np.take(self.codes, z.view(np.uint16), out=out, mode="clip")
            return
        negative = scratch.take("levels.negative", z.shape, np.int16)
        passed = scratch.take("levels.passed", z.shape, np.bool_)
        np.right_shift(z, 15, out=negative)
        np.copyto(out.view(np.int8), negative, casting="unsafe")
        np.abs(z, out=z)
        # Flipping all bits of m, where z is negative, makes -1 - m of it.
        spare = scratch.take("levels.spare", z.shape, np.uint8)
        spare.fill(0)
        for threshold in self.thresholds:
            np.greater(z, threshold, out=passed)
            np.add(spare, passed.view(np.uint8), out=spare)
        np.bitwise_xor(out, spare, out=out)
        np.add(out, 1 << (self.bits - 1), out=out)

    def restore(self, packed: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.float32]:
        """The levels of packed rows, (rows, order), alive in scratch."""
        places = self._places(packed, scratch)
        out = scratch.take("levels.values", (len(packed), self.order), np.float32)
        np.take(self.values, places, out=out.view(self.values.dtype), mode="clip")
        return out

    def weigh(self, packed: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.float64]:
        """The sum of weights of each packed row: integers below 2**24, exact."""
        places = self._places(packed, scratch)
        found = scratch.take("levels.weights", places.shape, np.float32)
        np.take(self.weights, places, out=found, mode="clip")
        ones = np.ones(places.shape[1], np.float32)
        return product(found, ones).astype(np.float64)

    def _places(self, packed: NDArray[np.uint8], scratch: Scratch) -> NDArray[Any]:
        """What to look up for a packed row."""
        if self.bits in (1, 2, 4, 8):
            return packed
        if self.bits == 3:
            return _twelve_bits(packed, scratch)
        codes: NDArray[np.uint8] = unpack_codes(packed[None], self.bits, self.order, scratch)[0]
        return codes


@lru_cache(maxsize=64)
def levels(order: int, bits: int) -> Levels:
    """The quantiser for an order that is a multiple of 8, from the frozen table."""
    start = order // STEP - 1
    positive = _frozen()[start, (1 << (bits - 1)) - 1 : (1 << bits) - 1]
    wide = positive.astype(np.int64)
    thresholds = (wide[1:] + wide[:-1]) // 8
    ascending = np.concatenate((-wide[::-1], wide))
    together = _TOGETHER.get(bits, 1)
    places = np.arange(1 << bits * together)[:, None] >> bits * np.arange(together)
    inside = places & ((1 << bits) - 1)
    values = np.ascontiguousarray(ascending[inside].astype(np.float32))
    weights = np.rint(ascending * ascending / (UNIT * UNIT / ONE)).astype(np.uint32)
    sums = count_sum(weights[inside], axis=1, largest=1 << 16, dtype=np.uint32)
    return Levels(
        order,
        bits,
        positive,
        tuple(int(threshold) for threshold in thresholds),
        values.view(f"V{4 * together}").reshape(-1) if together > 1 else values.reshape(-1),
        sums.reshape(-1).astype(np.float32),
        _code_table(thresholds, bits) if bits > _COMPARED else None,
    )


@cache
def _frozen() -> NDArray[np.int16]:
    data = resources.files("kvq_cli").joinpath("tables/levels.bin").read_bytes()
    return np.frombuffer(data, "<i2").reshape(-1, _ROW)


def _code_table(thresholds: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    z = np.arange(1 << 16, dtype=np.uint16).view(np.int16).astype(np.int64)
    passed = np.searchsorted(thresholds, np.abs(z))
    middle = 1 << (bits - 1)
    return np.where(z < 0, middle - 1 - passed, middle + passed).astype(np.uint8)


def _twelve_bits(packed: NDArray[np.uint8], scratch: Scratch) -> NDArray[np.uint16]:
    """Three bytes are two numbers of four codes each."""
    threes = packed.reshape(len(packed), -1, 3)
    words = scratch.take("levels.words", threes.shape[:2], "<u4")
    spare = scratch.take("levels.spare", threes.shape[:2], "<u4")
    words.fill(0)
    copy_bytes(threes, 3, words.view(np.uint8).reshape(*words.shape, 4))
    np.left_shift(words, 4, out=spare)
    np.bitwise_and(spare, 0xFFF0000, out=spare)
    np.bitwise_and(words, 0xFFF, out=words)
    np.bitwise_or(words, spare, out=words)
    return words.view("<u2")

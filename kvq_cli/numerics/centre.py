"""centre: the mean of each channel taken off a page before it is coded, and put back after.

Spec: formats/codecs/README.md, section "Centring".

Keys of many models carry a large constant in some channels. Less that, the scales of all codecs
are smaller. A mean has to be near, not perfect, so it is taken over integers, and over no more
than 64 tokens, n of them at equal distances:

    E       the least with every magnitude of the head below 2**E
    k       x · 2**(21 - E) rounded half to even
    mean    sum of k, exact / n, in float64; · 2**(E - 21), in float32; in the page's dtype
    x - mean, and on the way back the restored number + mean, are float32

Heads that reach 2**126 have means 0: their differences could overflow.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics import bits as number
from kvq_cli.numerics import rows
from kvq_cli.numerics.exact import total
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import Tile, part, tiles
from kvq_cli.page import DType, Page
from kvq_cli.record import record

# Adding 1.5 · 2**23 rounds a float32 below 2**22 to an integer, half to even, and leaves it,
# in two's complement, in the low bits.
ROUNDER: Final = np.float32(12582912)
_ROUNDER_BITS: Final = 0x4B400000
_WORD: Final = 0xFFFFFFFF
_DIGITS: Final = 21
_SAMPLE: Final = 64
_HIGHEST: Final = 126  # largest exponent of a factor, and of a head that is centred


@record
class Block:
    """A tile of a page as float32, and bits that order as its elements do."""

    tile: Tile
    values: NDArray[np.float32]  # elements / unit
    unit: np.float32
    bits: NDArray[Any]
    dtype: DType  # of bits
    reach: NDArray[np.float32] | None = None  # largest magnitude of each token, where it is known


def blocks(page: Page, scratch: Scratch, *, whole: bool) -> Iterator[Block]:
    """The page tile by tile, in arrays that are used again; `whole` heads where asked."""
    dtype = page.spec.dtype
    for tile in tiles(page.spec.shape, whole=whole):
        bits = page.bits[tile]
        values = scratch.take("block", bits.shape, np.float32)
        source = number.spread(bits, dtype, values)
        if source is not values:
            np.copyto(values, source)
        yield Block(tile, values, number.UNIT[dtype], bits, dtype)


def widened(block: Block) -> Block:
    """The block with its values as they are, for which those of `block` are used up."""
    if block.unit != 1:
        np.multiply(block.values, block.unit, out=block.values)
    return Block(block.tile, block.values, np.float32(1), block.values.view(np.uint32), DType.F32)


def centre(
    block: Block, peaks: NDArray[np.float32], means: NDArray[Any], dtype: DType, scratch: Scratch
) -> Block:
    """A widened block less its means, which go to `means` as `dtype`; `peaks` are its heads'."""
    np.copyto(means, _means(block.values, peaks, dtype, scratch))
    np.subtract(block.values, rows.values(means, dtype), out=block.values)
    return block


@record
class Means:
    """The way back: what is added, and to which tokens (H, T, 1); None is all of them."""

    values: NDArray[np.float32]
    chosen: NDArray[np.uint8] | None

    def add(self, restored: NDArray[np.float32], tile: Tile) -> None:
        """To a tile of restored numbers."""
        means = part(self.values, tile)
        chosen = None if self.chosen is None else part(self.chosen, tile)
        if chosen is None or chosen.all():
            np.add(restored, means, out=restored)
            return
        others = chosen[..., 0] == 0
        held = restored[others]
        np.add(restored, means, out=restored)
        restored[others] = held


def _means(
    values: NDArray[np.float32], peaks: NDArray[np.float32], dtype: DType, scratch: Scratch
) -> NDArray[Any]:
    """The bits of each channel's mean, (H, 1, D)."""
    sample = values[:, :: -(-values.shape[1] // _SAMPLE)]
    count = sample.shape[1]
    # A float32's exponent field less 126 is E.
    exponent = (peaks.view(np.uint32) >> 23).astype(np.int32) - _HIGHEST
    shift = np.minimum(_DIGITS - exponent, _HIGHEST)
    factor = np.where(exponent > _HIGHEST, 0, (shift + 127) << 23).view(np.float32)
    counts = scratch.take("centre", sample.shape, np.float32)
    np.multiply(sample, factor, out=counts)
    np.add(counts, ROUNDER, out=counts)
    sums = total(counts.view(np.uint32)) - np.uint32(_ROUNDER_BITS * count & _WORD)
    exact = sums.view(np.int32) / np.float64(count)
    means = np.ldexp(exact, -shift).astype(np.float32)
    out: NDArray[Any] = np.empty(means.shape, dtype.bits)
    if dtype is DType.F16:
        out.view(np.float16)[...] = means
        return out
    number.narrow(means, dtype, out, scratch)
    return out

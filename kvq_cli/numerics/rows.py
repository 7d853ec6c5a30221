"""rows: largest magnitudes, taken on the bits.

The magnitude bits of finite numbers order like the numbers, infinity lies above them and NaN
above infinity. So one integer maximum gives the row's scale and tells whether it is finite.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY, MAGNITUDE, widen
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part, tiles
from kvq_cli.page import DType, Page

SHORT: Final = 128  # channels up to which a row of 16-bit elements is reduced by sliding


def peaks(bits: NDArray[Any], dtype: DType, axis: int, scratch: Scratch) -> NDArray[Any]:
    """Magnitude bits of the largest element along axis 1 (tokens) or 2 (channels), kept."""
    heads, tokens, channels = bits.shape
    shape = (heads, 1, channels) if axis == 1 else (heads, tokens, 1)
    found = scratch.take("rows.peaks", shape, dtype.bits)
    found.fill(0)
    for tile in tiles((heads, tokens, channels)):
        block = bits[tile]
        magnitudes = scratch.take("rows.tile", block.shape, dtype.bits)
        np.bitwise_and(block, MAGNITUDE[dtype], out=magnitudes)
        piece = part(found, tile)
        # A head longer than a tile is met more than once: the maximum goes on.
        if axis == 2 and dtype.size == 2 and channels <= SHORT:
            np.copyto(piece, _sliding_max(magnitudes, scratch))
        else:
            np.maximum(piece, magnitudes.max(axis=axis, keepdims=True), out=piece)
    return found


def _sliding_max(magnitudes: NDArray[Any], scratch: Scratch) -> NDArray[Any]:
    """Maxima over the last axis, kept, of a contiguous array.

    A reduction pays some 30 ns a row. Maxima over windows of 1, 2, 4, … D elements, at every
    position of the flat array, are plain vector operations; each D-th window is a row.
    """
    length, channels = magnitudes.size, magnitudes.shape[2]
    now = magnitudes.reshape(-1)
    spare = [scratch.take(f"rows.slide{at}", (length,), magnitudes.dtype) for at in (0, 1)]
    width = 1
    while width < channels:
        shift = min(width, channels - width)
        wider = spare[0][: now.size - shift]
        np.maximum(now[:-shift], now[shift:], out=wider)
        now, width = wider, width + shift
        spare.reverse()
    return now[::channels].reshape(*magnitudes.shape[:2], 1)


def values(magnitudes: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """Finite peaks as float32."""
    out = np.empty(magnitudes.shape, np.float32)
    widen(magnitudes, dtype, out)
    return out


def all_finite(magnitudes: NDArray[Any], dtype: DType) -> bool:
    return bool(magnitudes.max(initial=0) < INFINITY[dtype])


def first_non_finite(page: Page) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """The first (head, token, channel) that is infinite or NaN, and which heads hold any."""
    dtype = page.spec.dtype
    found = (page.bits & MAGNITUDE[dtype]) >= INFINITY[dtype]
    head, token, channel = np.unravel_index(int(found.argmax()), found.shape)
    return (int(head), int(token), int(channel)), np.asarray(found.any(axis=(1, 2)))

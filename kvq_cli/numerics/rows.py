"""rows: largest magnitudes and ranges of groups, taken on the bits.

The magnitude bits of finite numbers order like the numbers, infinity lies above them and NaN
above infinity. So one integer maximum gives a group's scale and tells whether it is finite.
With the sign they order like this:

    ordered    bits as a signed integer, the other bits flipped where it is negative
    turned     bits rotated left by one: the sign is the last bit and decides among equals

Both undo themselves (`ordered`) or are undone (`turned`) on the few results.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY, MAGNITUDE, widen
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page


def peaks(bits: NDArray[Any], dtype: DType, groups: Groups, scratch: Scratch) -> NDArray[Any]:
    """Magnitude bits of the largest element of each group."""
    magnitudes = scratch.take("rows", bits.shape, dtype.bits)
    np.bitwise_and(bits, MAGNITUDE[dtype], out=magnitudes)
    return groups.extreme(np.maximum, magnitudes, scratch)


def signed_peaks(
    bits: NDArray[Any], dtype: DType, groups: Groups, scratch: Scratch
) -> NDArray[Any]:
    """Bits of the element of largest magnitude of each group; of two the negative one."""
    turned = scratch.take("rows", bits.shape, dtype.bits)
    spare = scratch.take("rows.spare", bits.shape, dtype.bits)
    last = 8 * dtype.size - 1
    np.left_shift(bits, 1, out=turned)
    np.right_shift(bits, last, out=spare)
    np.bitwise_or(turned, spare, out=turned)
    found = groups.extreme(np.maximum, turned, scratch)
    bits_found: NDArray[Any] = found >> 1 | found << last
    return bits_found


def ranges(
    bits: NDArray[Any], dtype: DType, groups: Groups, scratch: Scratch
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Bits of the least and of the greatest element of each group."""
    ordered = scratch.take("rows", bits.shape, f"<i{dtype.size}")
    _order(bits.view(ordered.dtype), dtype, ordered)
    least = groups.extreme(np.minimum, ordered, scratch)
    greatest = groups.extreme(np.maximum, ordered, scratch)
    for found in (least, greatest):
        _order(found.copy(), dtype, found)
    return least.view(dtype.bits), greatest.view(dtype.bits)


def _order(signed: NDArray[Any], dtype: DType, out: NDArray[Any]) -> None:
    np.right_shift(signed, 8 * dtype.size - 1, out=out)
    np.bitwise_and(out, MAGNITUDE[dtype], out=out)
    np.bitwise_xor(out, signed, out=out)


def values(bits: NDArray[Any], dtype: DType) -> NDArray[np.float32]:
    """A few finite numbers as float32."""
    if dtype is DType.F16:
        return bits.view(np.float16).astype(np.float32)
    out = np.empty(bits.shape, np.float32)
    widen(bits, dtype, out)
    return out


def all_finite(bits: NDArray[Any], dtype: DType) -> bool:
    return bool((bits & MAGNITUDE[dtype]).max(initial=0) < INFINITY[dtype])


def first_non_finite(page: Page) -> tuple[tuple[int, int, int], NDArray[np.bool_]]:
    """The first (head, token, channel) that is infinite or NaN, and which heads hold any."""
    dtype = page.spec.dtype
    found = (page.bits & MAGNITUDE[dtype]) >= INFINITY[dtype]
    head, token, channel = np.unravel_index(int(found.argmax()), found.shape)
    return (int(head), int(token), int(channel)), np.asarray(found.any(axis=(1, 2)))

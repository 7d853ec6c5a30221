"""exact: the only sums that a codec may take, and the arithmetic they stand on.

Law: docs/architecture.md. A sum of integers that cannot overflow does not depend on its
order; a sum of floats does. Codecs reduce by `count_sum`, `total`, `product`, `squared`,
`whole_sum`, or by max, min, any and all.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kvq_cli.errors import CodecError

_TINY: Final = np.array([1], np.uint32)  # the bits of 2**-149, the least subnormal


def count_sum(integers: NDArray[Any], *, axis: int, largest: int, dtype: DTypeLike) -> NDArray[Any]:
    """Sums along `axis`, kept as an axis of length 1; no element is greater than `largest`."""
    if integers.dtype.kind != "u" or np.dtype(dtype).kind != "u":
        raise TypeError(f"only unsigned integers are summed, not {integers.dtype}")
    if integers.shape[axis] * largest > np.iinfo(dtype).max:
        raise OverflowError(f"{integers.shape[axis]} times {largest} does not fit {dtype}")
    return np.add.reduce(integers, axis=axis, dtype=dtype, keepdims=True)


def total(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Sums over axis 1 of (H, T, D), modulo 2**32, as (H, 1, D)."""
    found: NDArray[np.uint32] = np.add.reduce(words, axis=1, dtype=np.uint32, keepdims=True)
    return found


def product(
    left: NDArray[Any], right: NDArray[Any], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """A matrix product over integers held in floats; the caller has bounded every partial sum.

    Below 2**24 in float32 and 2**53 in float64 no sum is rounded, so its order does not matter.
    """
    found: NDArray[Any] = np.matmul(left, right, out=out)
    return found


def squared(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The sum of squares of each row of integers; likewise."""
    found: NDArray[np.float64] = np.vecdot(rows, rows)
    return found


def whole_sum(whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums along the last axis of integers; likewise."""
    found: NDArray[np.float64] = np.add.reduce(whole, axis=-1)
    return found


def require_subnormals() -> None:
    """CodecError where this thread flushes subnormals to zero: results would differ.

    Some libraries switch that on for the whole process, and nothing else would show it.
    """
    kept = np.multiply(_TINY.view(np.float32), np.float32(2))
    if kept.view(np.uint32)[0] != 2:
        raise CodecError(
            "E504", "this process flushes subnormal numbers to zero, so results would differ"
        )

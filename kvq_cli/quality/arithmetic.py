"""arithmetic: products and sums of attention metrics, in two kinds.

    FLOATS    BLAS and NumPy: as near as float64 gets, the last digits as it happens
    EXACT     over integers held in float64: the same bits on every machine

What a budget decides becomes bytes of a container, so it is measured by EXACT; what a report
tells is measured by FLOATS. EXACT rounds each row of a product's factors to integers, as many
bits as keep every partial sum below 2**53, and scales back by powers of two, which is exact:

    bits of a factor = (53 - ceil(log2(length))) / 2        23 for rows of 128

Elementwise operations need no second kind: IEEE says what they give. NumPy's `exp` does not
belong to them; that of EXACT takes ln 2 off in two parts, and a Taylor polynomial of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics import exact

Floats = NDArray[np.float64]

MANTISSA: Final = 53
CHUNK: Final = 1 << 14  # numbers whose temporaries stay in the processor's cache
_LOG2_E: Final = 1.4426950408889634
_LN2_HIGH: Final = 6.93147180369123816490e-01  # 33 bits, so that k times it is exact
_LN2_LOW: Final = 1.90821492927058770002e-10
_LEAST: Final = -708.0  # below, exp is no normal number; 0 is near enough
_MAGIC: Final = 1.5 * 2.0**52
_TERMS: Final = tuple(1 / math.factorial(n) for n in range(9, -1, -1))


class Arithmetic(NamedTuple):
    """How rows are multiplied, numbers summed along the last axis, and powers of e taken."""

    product: Callable[[Floats, Floats], Floats]  # (…, m, n) and (…, p, n) to (…, m, p)
    total: Callable[[Floats], Floats]
    exp: Callable[[Floats], Floats]  # of numbers of at most 0


def _exact_exp(numbers: Floats) -> Floats:
    """e to the power of numbers of at most 0, within 1e-11 of it; -inf gives 0."""
    flat = numbers.reshape(-1)
    found = np.empty(flat.shape)
    for at in range(0, flat.size, CHUNK):
        found[at : at + CHUNK] = _exp(flat[at : at + CHUNK])
    return found.reshape(numbers.shape)


def _exp(numbers: Floats) -> Floats:
    held = np.maximum(numbers, _LEAST)
    # The sum's last bits are the integer next to what was added.
    shifted = held * _LOG2_E
    shifted += _MAGIC
    powers = shifted - _MAGIC
    held -= powers * _LN2_HIGH
    powers *= _LN2_LOW
    held -= powers
    found = held * _TERMS[0]
    for term in _TERMS[1:-1]:
        found += term
        found *= held
    found += _TERMS[-1]
    bits = shifted.view(np.int64)
    bits += 1023
    bits <<= 52
    found *= bits.view(np.float64)
    if numbers.min() < _LEAST:
        found[numbers < _LEAST] = 0.0
    return found


def _float_product(left: Floats, right: Floats) -> Floats:
    found: Floats = np.matmul(left, right.swapaxes(-1, -2))
    return found


def _float_total(numbers: Floats) -> Floats:
    found: Floats = np.add.reduce(numbers, axis=-1)
    return found


def _exact_product(left: Floats, right: Floats) -> Floats:
    bits = (MANTISSA - (left.shape[-1] - 1).bit_length()) // 2
    one, one_unit = _integers(left, bits)
    other, other_unit = _integers(right, bits)
    found: Floats = exact.product(one, other.swapaxes(-1, -2))
    found *= one_unit
    found *= other_unit.swapaxes(-1, -2)
    return found


def _exact_total(numbers: Floats) -> Floats:
    whole, unit = _integers(numbers, MANTISSA - 1 - (numbers.shape[-1] - 1).bit_length())
    found: Floats = exact.whole_sum(whole) * unit[..., 0]
    return found


def _integers(rows: Floats, bits: int) -> tuple[Floats, Floats]:
    """Rows as integers below 2**bits, and the unit of each row, a power of two."""
    peaks = np.maximum(rows.max(axis=-1, keepdims=True), -rows.min(axis=-1, keepdims=True))
    _, exponents = np.frexp(peaks)
    # Units beyond these would overflow; what is so small adds nothing that anybody asks for.
    exponents = np.maximum(exponents, -900)
    whole = rows * np.ldexp(1.0, bits - exponents)
    return np.rint(whole, out=whole), np.ldexp(1.0, exponents - bits)


FLOATS: Final = Arithmetic(_float_product, _float_total, np.exp)
EXACT: Final = Arithmetic(_exact_product, _exact_total, _exact_exp)

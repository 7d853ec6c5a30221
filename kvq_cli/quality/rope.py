"""rope: rotary positions, for keys and queries that were stored without.

Spec: formats/report.md, section "Attention".

    angle of token t, pair i     t · theta ** (-2 i / D)
    half-rotated                 pair i is channels i and i + D/2
    interleaved                  pair i is channels 2 i and 2 i + 1
    (x, y)                       (x cos - y sin, y cos + x sin)

Frequencies come from decimal arithmetic, sines from polynomials in IEEE operations: what a
budget decides must not depend on a machine's library of functions.
"""

from __future__ import annotations

import math
from decimal import Context, Decimal
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record

_DIGITS: Final = Context(prec=40)
_TWO_OVER_PI: Final = 0.6366197723675814
_HALF_PI_HIGH: Final = 1.57079632673412561417  # 33 bits, so that turns times it is exact
_HALF_PI_LOW: Final = 6.07710050650619224932e-11
# Taylor polynomials, the last term first.
_SIN: Final = tuple((2 - n % 4) / math.factorial(n) for n in range(17, 0, -2))
_COS: Final = tuple((1 - n % 4) / math.factorial(n) for n in range(16, -1, -2))


@record
class Rope:
    """How one model turns its keys."""

    theta: float
    interleaved: bool = False

    def rotate(self, rows: Floats, positions: NDArray[np.int64]) -> Floats:
        """Rows (…, T, D) at these positions, turned."""
        channels = rows.shape[-1]
        frequencies = _frequencies(self.theta, channels)
        sines, cosines = sin_cos(positions[:, None] * frequencies)
        if self.interleaved:
            first, second = slice(0, None, 2), slice(1, None, 2)
        else:
            first, second = slice(0, channels // 2), slice(channels // 2, None)
        one, other = rows[..., first], rows[..., second]
        turned = np.empty_like(rows)
        turned[..., first] = one * cosines - other * sines
        turned[..., second] = other * cosines + one * sines
        return turned


@lru_cache(maxsize=8)
def _frequencies(theta: float, channels: int) -> Floats:
    base = Decimal(theta).ln(_DIGITS)
    return np.array(
        [
            float(_DIGITS.exp(_DIGITS.multiply(base, _DIGITS.divide(Decimal(-at), channels))))
            for at in range(0, channels, 2)
        ]
    )


def sin_cos(angles: Floats) -> tuple[Floats, Floats]:
    """Sine and cosine of angles below 2**19 quarter turns."""
    turns = np.rint(angles * _TWO_OVER_PI)
    rest = (angles - turns * _HALF_PI_HIGH) - turns * _HALF_PI_LOW
    squares = rest * rest
    sine, cosine = np.full_like(rest, _SIN[0]), np.full_like(rest, _COS[0])
    for odd, even in zip(_SIN[1:], _COS[1:], strict=True):
        sine = sine * squares + odd
        cosine = cosine * squares + even
    sine *= rest
    quarter = turns.astype(np.int64) & 3
    swapped = (quarter & 1).astype(bool)
    found_sine = np.where(swapped, cosine, sine)
    found_cosine = np.where(swapped, sine, cosine)
    found_sine[quarter >= 2] *= -1
    found_cosine[(quarter == 1) | (quarter == 2)] *= -1
    return found_sine, found_cosine

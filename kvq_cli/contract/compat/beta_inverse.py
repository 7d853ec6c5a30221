"""beta_inverse: the quantile of a beta distribution, as coarse as the reference's.

Spec: formats/fibquant-compat.md, section "Beta quantile".

    I(x; a, b) = x^a (1 - x)^b / (a B(a, b)) · continued fraction
    quantile   16 halvings of [-2, 2]: an odd multiple of 2^-15

The result is off by up to 1 percent. Training smooths that out, and digests depend on it.
"""

from __future__ import annotations

import math
from typing import Final

_HALVINGS: Final = 16
_MAX_TERMS: Final = 140
_PRECISION: Final = 2.0**-53
_TINY: Final = 2.0**-969  # the smallest normal float64 divided by the precision

_LN_2_SQRT_E_OVER_PI: Final = 0.6207822376352452223455184457816472122518527279025978
_LANCZOS_R: Final = 10.900511
_LANCZOS: Final = (
    2.48574089138753565546e-5,
    1.05142378581721974210,
    -3.45687097222016235469,
    4.51227709466894823700,
    -2.98285225323576655721,
    1.05639711577126713077,
    -1.95428773191645869583e-1,
    1.70970543404441224307e-2,
    -5.71926117404305781283e-4,
    4.63399473359905636708e-6,
    -2.71994908488607703910e-9,
)


class BetaQuantile:
    """Quantiles of Beta(a, b), for a and b of at least 1 and not both 1."""

    def __init__(self, a: float, b: float) -> None:
        self._a = a
        self._b = b
        self._known: dict[float, float] = {}  # halvings of many quantiles meet the same points

    def __call__(self, probability: float) -> float:
        """The quantile of a probability between 0 and 1, both excluded."""
        low, high = -2.0, 2.0
        for _ in range(_HALVINGS):
            middle = (high + low) / 2.0
            if self._distribution(middle) >= probability:
                high = middle
            else:
                low = middle
        return min(max((high + low) / 2.0, 0.0), 1.0)

    def _distribution(self, x: float) -> float:
        if x <= 0.0:
            return 0.0
        if x >= 1.0:
            return 1.0
        if x not in self._known:
            self._known[x] = regularised(self._a, self._b, x)
        return self._known[x]


def ln_gamma(x: float) -> float:
    """The logarithm of the gamma function by Lanczos' series, for x of at least 1/2."""
    total = _LANCZOS[0]
    for at, coefficient in enumerate(_LANCZOS[1:], 1):
        total += coefficient / (x + at - 1.0)
    power = (x - 0.5) * math.log((x - 0.5 + _LANCZOS_R) / math.e)
    return math.log(total) + _LN_2_SQRT_E_OVER_PI + power


def regularised(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function of 0 < x < 1."""
    logarithm = ln_gamma(a + b) - ln_gamma(a) - ln_gamma(b)
    factor = math.exp(logarithm + a * math.log(x) + b * math.log(1.0 - x))
    # The fraction converges fast below the mean; above it the complement is taken.
    if x >= (a + 1.0) / (a + b + 2.0):
        return 1.0 - factor * _fraction(b, a, 1.0 - x) / b
    return factor * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """Lentz's evaluation of the continued fraction; what becomes 0 is replaced by _TINY."""
    both, above, below = a + b, a + 1.0, a - 1.0
    c = 1.0
    d = 1.0 / _not_zero(1.0 - both * x / above)
    result = d
    for term in range(1, _MAX_TERMS + 1):
        m, twice = float(term), 2.0 * term
        even = m * (b - m) * x / ((below + twice) * (a + twice))
        d = 1.0 / _not_zero(1.0 + even * d)
        c = _not_zero(1.0 + even / c)
        result = result * d * c
        odd = -(a + m) * (both + m) * x / ((a + twice) * (above + twice))
        d = 1.0 / _not_zero(1.0 + odd * d)
        c = _not_zero(1.0 + odd / c)
        change = d * c
        result *= change
        if abs(change - 1.0) <= _PRECISION:
            break
    return result


def _not_zero(value: float) -> float:
    return _TINY if abs(value) < _TINY else value

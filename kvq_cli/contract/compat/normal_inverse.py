"""normal_inverse: the quantile of the standard normal distribution.

Spec: formats/fibquant-compat.md, section "Normal quantile".

    quantile(p) = 0 - √2 · erfc⁻¹(2 p)

The inverse is made of rational functions; PIECES has those of |erf| above 3/4, by
√(-ln erfc). Probabilities within 10^-12 of 0 or 1 never come here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from kvq_cli.record import record

_SQRT_2: Final = math.sqrt(2.0)


@record
class Rational:
    """numerator(x - shift) / denominator(x - shift), coefficients from the constant one on."""

    offset: float  # what is added to the quotient
    shift: float
    numerator: tuple[float, ...]
    denominator: tuple[float, ...]

    def __call__(self, x: float) -> float:
        at = x - self.shift
        return _polynomial(at, self.numerator) / _polynomial(at, self.denominator)


CENTRE: Final = Rational(
    0.0891314744949340820313,
    0.0,
    (
        -0.000508781949658280665617, -0.00836874819741736770379, 0.0334806625409744615033,
        -0.0126926147662974029034, -0.0365637971411762664006, 0.0219878681111168899165,
        0.00822687874676915743155, -0.00538772965071242932965,
    ),
    (
        1.0, -0.970005043303290640362, -1.56574558234175846809, 1.56221558398423026363,
        0.662328840472002992063, -0.71228902341542847553, -0.0527396382340099713954,
        0.0795283687341571680018, -0.00233393759374190016776, 0.000886216390456424707504,
    ),
)  # fmt: skip
SHOULDER: Final = Rational(
    2.249481201171875,
    0.25,
    (
        -0.202433508355938759655, 0.105264680699391713268, 8.37050328343119927838,
        17.6447298408374015486, -18.8510648058714251895, -44.6382324441786960818,
        17.445385985570866523, 21.1294655448340526258, -3.67192254707729348546,
    ),
    (
        1.0, 6.24264124854247537712, 3.9713437953343869095, -28.6608180499800029974,
        -20.1432634680485188801, 48.5609213108739935468, 10.8268667355460159008,
        -22.6436933413139721736, 1.72114765761200282724,
    ),
)  # fmt: skip
TAIL: Final = Rational(
    0.807220458984375,
    1.125,
    (
        -0.131102781679951906451, -0.163794047193317060787, 0.117030156341995252019,
        0.387079738972604337464, 0.337785538912035898924, 0.142869534408157156766,
        0.0290157910005329060432, 0.00214558995388805277169, -0.679465575181126350155e-6,
        0.285225331782217055858e-7, -0.681149956853776992068e-9,
    ),
    (
        1.0, 3.46625407242567245975, 5.38168345707006855425, 4.77846592945843778382,
        2.59301921623620271374, 0.848854343457902036425, 0.152264338295331783612,
        0.01105924229346489121,
    ),
)  # fmt: skip
FAR_TAIL: Final = Rational(
    0.93995571136474609375,
    3.0,
    (
        -0.0350353787183177984712, -0.00222426529213447927281, 0.0185573306514231072324,
        0.00950804701325919603619, 0.00187123492819559223345, 0.000157544617424960554631,
        0.460469890584317994083e-5, -0.230404776911882601748e-9, 0.266339227425782031962e-11,
    ),
    (
        1.0, 1.3653349817554063097, 0.762059164553623404043, 0.220091105764131249824,
        0.0341589143670947727934, 0.00263861676657015992959, 0.764675292302794483503e-4,
    ),
)  # fmt: skip


def normal_quantile(probability: float) -> float:
    """The quantile of a probability from 10^-12 to 1 - 10^-12."""
    return 0.0 - _SQRT_2 * _erfc_inverse(2.0 * probability)


def _erfc_inverse(x: float) -> float:
    if x > 1.0:
        return -_positive(-1.0 + x, 2.0 - x)
    return _positive(1.0 - x, x)


def _positive(p: float, q: float) -> float:
    """erf⁻¹(p) for p of at least 0, with q = 1 - p."""
    if p <= 0.5:
        scale = p * (p + 10.0)
        return scale * CENTRE.offset + scale * CENTRE(p)
    if q >= 0.25:
        return math.sqrt(-2.0 * math.log(q)) / (SHOULDER.offset + SHOULDER(q))
    x = math.sqrt(-math.log(q))
    # Beyond 6 lie probabilities that are below 10^-12.
    piece = TAIL if x < 3.0 else FAR_TAIL
    return piece.offset * x + piece(x) * x


def _polynomial(x: float, coefficients: Sequence[float]) -> float:
    result = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + coefficient
    return result

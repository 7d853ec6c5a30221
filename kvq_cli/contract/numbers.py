"""numbers: float64 and float32 as the text that digests are taken over.

Spec: formats/contract.md, section "Numbers".

The shortest digits that read back to the same bits, closest to the value where several do.
With e the decimal exponent of the first digit:

    float64   -5 <= e <= 15   fixed, always with a point     0.00001  1.0  1000000000000000.0
    float32   -6 <= e <= 12   fixed, always with a point     0.000001  16777216.0
    else                      d[.ddd]e±X, plus sign written  1e-6  1.5e+16

Zero keeps its sign. What is not finite is null, and no valid object holds it.
"""

from __future__ import annotations

import math
from typing import Final, SupportsFloat

FIXED_F64: Final = range(-5, 16)
FIXED_F32: Final = range(-6, 13)


def f64_text(value: float) -> str:
    """The text of a float64."""
    # repr has the shortest digits by the language's own promise; only its form differs, and not
    # even that between these bounds. Rotations have millions of numbers there.
    if 1e-4 <= abs(value) < 1e16:
        return repr(float(value))
    return _text(value, repr(abs(float(value))), FIXED_F64)


def f32_text(value: SupportsFloat) -> str:
    """The text of a float32; ValueError where the value is none."""
    import numpy as np  # here, because headers are read without it

    narrow = np.float32(value)
    if math.isfinite(value) and float(narrow) != float(value):
        raise ValueError(f"{value!r} is not a float32")
    digits = np.format_float_scientific(np.abs(narrow), unique=True, trim="-")
    return _text(float(value), digits, FIXED_F32)


def _text(value: float, digits: str, fixed: range) -> str:
    if not math.isfinite(value):
        return "null"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return f"{sign}0.0"
    significant, exponent = _split(digits)
    write = _fixed if exponent in fixed else _scientific
    return sign + write(significant, exponent)


def _split(digits: str) -> tuple[str, int]:
    """Of d.ddde±X: the digits without zeros around them, and the exponent of the first."""
    mantissa, _, power = digits.partition("e")
    whole, _, fraction = mantissa.partition(".")
    significant = (whole + fraction).lstrip("0")
    exponent = int(power) + len(significant) - len(fraction) - 1
    return significant.rstrip("0"), exponent


def _fixed(significant: str, exponent: int) -> str:
    if exponent < 0:
        return f"0.{'0' * (-exponent - 1)}{significant}"
    whole = exponent + 1
    return f"{significant[:whole].ljust(whole, '0')}.{significant[whole:] or '0'}"


def _scientific(significant: str, exponent: int) -> str:
    fraction = f".{significant[1:]}" if len(significant) > 1 else ""
    return f"{significant[0]}{fraction}e{exponent:+d}"

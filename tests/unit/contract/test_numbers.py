"""Float text: shortest, in the stated form, and back to the same bits."""

from __future__ import annotations

import math
import re
import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.contract import compact
from kvq_cli.contract.numbers import f32_text, f64_text

FORM = re.compile(r"-?(0|[1-9][0-9]*)\.[0-9]+|-?[1-9](\.[0-9]*[1-9])?e[+-][1-9][0-9]*")


@settings(deadline=None, max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float64_reads_back(value: float) -> None:
    """The text of a float64 has the form of the spec and gives the same bits back."""
    text = f64_text(value)
    assert FORM.fullmatch(text)
    assert struct.pack("d", float(text)) == struct.pack("d", value)


@settings(deadline=None, max_examples=200)
@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_float32_reads_back(value: float) -> None:
    """The text of a float32 has the form of the spec and is nearest to no other float32."""
    text = f32_text(value)
    assert FORM.fullmatch(text)
    assert math.copysign(1, float(text)) == math.copysign(1, value)
    assert nearest_float32(Fraction(text)) == value


@settings(deadline=None, max_examples=100)
@given(st.floats(min_value=2**-149, max_value=2.0**127, width=32))
def test_float32_is_shortest(value: float) -> None:
    """No decimal of fewer digits reads back to the same float32."""
    digits = f32_text(value).partition("e")[0].replace(".", "").strip("0")
    exact = Fraction(value)
    unit = Fraction(10) ** (math.floor(math.log10(value)) - len(digits) + 2)
    for shorter in (exact // unit * unit, exact // unit * unit + unit):
        assert len(digits) == 1 or nearest_float32(shorter) != value


def nearest_float32(value: Fraction) -> float:
    """Half to even, by exact comparison with the neighbours of a first guess."""
    guess = np.float32(float(value))
    with np.errstate(over="ignore"):  # beside the largest number lies infinity
        above, below = (np.nextafter(guess, np.float32(end)) for end in (np.inf, -np.inf))
    near = [float(number) for number in (below, guess, above) if np.isfinite(number)]
    return min(near, key=lambda number: (abs(Fraction(number) - value), odd(number)))


def odd(value: float) -> int:
    return int(np.float32(value).view(np.uint32)) & 1


@pytest.mark.parametrize("exponent", range(-149, 128))
def test_powers_of_two(exponent: int) -> None:
    """Powers of two, whose neighbours lie at unequal distances, read back."""
    value = math.ldexp(1.0, exponent)
    assert nearest_float32(Fraction(f32_text(value))) == value
    assert float(f64_text(value)) == value


@pytest.mark.parametrize(
    ("value", "wide"),
    [(9999999999999998.0, "9999999999999998.0"), (1e16, "1e+16"), (1e-5, "0.00001")],
)
def test_edges_of_the_fixed_form(value: float, wide: str) -> None:
    """The last fixed and the first scientific float64 stand where the spec says."""
    assert f64_text(value) == wide


def test_what_is_not_finite_is_null() -> None:
    """NaN and infinities are null, in both widths."""
    for value in (math.nan, math.inf, -math.inf):
        assert f64_text(value) == f32_text(value) == "null"


def test_float32_text_takes_no_float64() -> None:
    """A value that float32 would round is refused."""
    with pytest.raises(ValueError, match="not a float32"):
        f32_text(0.1)


def test_compact_json() -> None:
    """Order is kept, nothing is escaped that need not be, floats have their own text."""
    value = {"b": [1.0, 2**64 - 1, True, None], "a": 'é"\\/\x7f\x1f\n', "e": [], "o": {}}
    text = '{"b":[1.0,18446744073709551615,true,null],"a":"é\\"\\\\/\x7f\\u001f\\n","e":[],"o":{}}'
    assert compact.write(value) == text

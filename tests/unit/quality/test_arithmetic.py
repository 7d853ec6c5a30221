"""arithmetic: exponentials and sines against mpmath-free truths, and sums that know no order."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_cli.quality.arithmetic import EXACT, FLOATS
from kvq_cli.quality.rope import sin_cos

RNG = np.random.Generator(np.random.PCG64(3))
NUMBERS = st.floats(-1e30, 1e30, allow_subnormal=False)


def test_exp_is_near_that_of_the_library():
    """Over the range of a softmax, and at its ends."""
    numbers = -np.abs(RNG.standard_normal(100_000)) * 80
    np.testing.assert_allclose(EXACT.exp(numbers), np.exp(numbers), rtol=1e-11)
    ends = EXACT.exp(np.array([0.0, -0.0, -1e-300, -708.0, -708.1, -1e308, -np.inf]))
    assert ends.tolist() == [1.0, 1.0, 1.0, pytest.approx(math.exp(-708), rel=1e-11), 0, 0, 0]


def test_exp_does_not_depend_on_neighbours():
    """A number alone gives what it gives among others: no kernel is chosen by length."""
    numbers = -np.abs(RNG.standard_normal(67)) * 9
    together = EXACT.exp(numbers)
    alone = [EXACT.exp(numbers[at : at + 1])[0] for at in range(len(numbers))]
    assert together.tolist() == alone


def test_sines_are_those_of_the_library():
    """To 2**-53, up to the largest angle of 100,000 tokens and beyond."""
    angles = np.concatenate([RNG.random(50_000) * 2**17, np.arange(40) * math.pi / 4])
    sines, cosines = sin_cos(angles)
    np.testing.assert_allclose(sines, np.sin(angles), atol=2.3e-16, rtol=0)
    np.testing.assert_allclose(cosines, np.cos(angles), atol=2.3e-16, rtol=0)


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_exact_totals_know_no_order(numbers, random):
    """Any order gives the same bits, near the true sum."""
    shuffled = list(numbers)
    random.shuffle(shuffled)
    one, other = (EXACT.total(np.array(each)).item() for each in (numbers, shuffled))
    assert one == other
    true = sum(map(Fraction, numbers), Fraction(0))
    largest = max(map(abs, map(Fraction, numbers)))
    tiny = Fraction(1, 2**900)  # what is smaller may be lost
    assert abs(Fraction(one) - true) <= (largest + tiny) * Fraction(len(numbers), 2**46)


@pytest.mark.parametrize("length", [1, 2, 31, 128, 256, 4096])
def test_exact_products_know_no_order(length):
    """Any order of the terms gives the same bits, near those of float64."""
    left, right = RNG.standard_normal((2, 5, length)), RNG.standard_normal((2, 7, length)) * 300
    left[0, 0], right[1, 2] = 0, 1e-310
    order = RNG.permutation(length)
    found = EXACT.product(left, right)
    again = EXACT.product(
        np.ascontiguousarray(left[..., order]), np.ascontiguousarray(right[..., order])
    )
    assert found.tobytes() == again.tobytes()
    largest = np.abs(left).max() * np.abs(right).max() * length
    bits = (53 - (length - 1).bit_length()) // 2
    assert np.abs(found - FLOATS.product(left, right)).max() <= largest * 2.0**-bits


def test_exact_totals_of_nothing_and_of_zeros():
    """Zeros are zero; tiny numbers do not overflow the unit."""
    assert EXACT.total(np.zeros((2, 3))).tolist() == [0, 0]
    assert EXACT.total(np.full((1, 4), 5e-324)).tolist() == [0]

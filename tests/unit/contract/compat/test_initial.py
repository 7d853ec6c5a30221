"""The first codebook: quantiles, directions and radii."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest

from kvq_cli.contract.compat.beta_inverse import BetaQuantile, ln_gamma, regularised
from kvq_cli.contract.compat.initial import initial_codewords, integer_power
from kvq_cli.contract.compat.normal_inverse import normal_quantile
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import ProfileError

PROBABILITIES = [1e-12, 1e-9, 1e-4, 0.02, 0.11, 0.26, 0.5, 0.6, 0.77, 0.9, 0.999, 1.0 - 1e-12]


@pytest.mark.parametrize("probability", PROBABILITIES)
def test_normal_quantiles(probability: float) -> None:
    """Every piece of the rational approximation is a normal quantile."""
    expected = NormalDist().inv_cdf(probability)
    assert normal_quantile(probability) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("x", [0.5, 1.0, 1.5, 2.0, 10.0, 31.75, 2048.0])
def test_ln_gamma(x: float) -> None:
    """Lanczos' series is the logarithm of the gamma function."""
    assert ln_gamma(x) == pytest.approx(math.lgamma(x), rel=1e-13, abs=1e-13)


def test_the_beta_distribution() -> None:
    """The continued fraction agrees with closed forms, on both sides of the mean."""
    for x in (0.01, 0.2, 0.5, 0.8, 0.99):
        assert regularised(2.0, 1.0, x) == pytest.approx(x * x, rel=1e-13)
        assert regularised(1.0, 3.0, x) == pytest.approx(1.0 - (1.0 - x) ** 3, rel=1e-13)


@pytest.mark.parametrize(("a", "b"), [(1.5, 1.0), (2.0, 41.0), (8.0, 31.5), (128.0, 1.0)])
def test_beta_quantiles_are_coarse(a: float, b: float) -> None:
    """A quantile is an odd multiple of 2^-15, next to the true one, and never falls."""
    quantile = BetaQuantile(a, b)
    found = [quantile((n - 0.5) / 100) for n in range(1, 101)]
    assert found == sorted(found)
    for n, value in enumerate(found, 1):
        assert value * 2**15 % 2 == 1
        low, high = (
            regularised(a, b, each) for each in (value - 2.0**-15, value + 2.0**-15 / 1.01)
        )
        assert low - 1e-12 <= (n - 0.5) / 100 <= max(high, 1.0 - 1e-12) + 1e-2


def test_quantiles_end_at_the_ends() -> None:
    """Extreme probabilities stay within 0 and 1."""
    quantile = BetaQuantile(2.0, 41.0)
    assert quantile(1e-300) == 2.0**-15
    assert 0.0 < quantile(1.0 - 2.0**-53) < 1.0


@pytest.mark.parametrize("exponent", [1, 2, 3, 7, 16, 257])
def test_integer_powers(exponent: int) -> None:
    """Squaring gives the power but for rounding, and exactly where nothing is rounded."""
    assert integer_power(2.0, exponent) == 2.0**exponent
    assert integer_power(1.1, exponent) == pytest.approx(1.1**exponent, rel=1e-13)


@pytest.mark.parametrize(("d", "k", "size"), [(16, 2, 64), (12, 3, 12), (64, 4, 32), (64, 16, 8)])
def test_codewords_lie_in_the_ball(d: int, k: int, size: int) -> None:
    """Radii grow with the number of the codeword, and stay below 1."""
    words = initial_codewords(FibQuantProfileV1.paper_default(d, k, size, 1))
    assert words.shape == (size, k)
    radii = np.sqrt((words * words).sum(axis=1))
    assert (np.diff(radii) > -1e-12).all()
    assert radii.max() < 1.0


def test_the_closed_form_is_the_quantile() -> None:
    """For k = 2 the closed form is what the beta quantile approaches."""
    words = initial_codewords(FibQuantProfileV1.paper_default(16, 2, 64, 1))
    quantile = BetaQuantile(1.0, 4.0)
    for n, word in enumerate(words, 1):
        assert (word**2).sum() == pytest.approx(quantile((n - 0.5) / 64), abs=2.0**-14)


def test_one_dimension_has_no_directions() -> None:
    """A profile of block_dim 1 is valid and has no codebook."""
    with pytest.raises(ProfileError) as refusal:
        initial_codewords(FibQuantProfileV1.paper_default(8, 1, 4, 1))
    assert (refusal.value.error_id, refusal.value.pointer) == ("E403", "/block_dim")

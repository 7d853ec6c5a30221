"""Moments of blocks are those of all rows together."""

from __future__ import annotations

import numpy as np

from kvq_cli.steps.moments import Moments

ROWS = np.random.default_rng(0).standard_normal((500, 12)) * np.arange(1, 13) + 1e4


def moments(parts):
    found = Moments(ROWS[:3].mean(axis=0))
    for part in parts:
        found.add(part)
    return found


def test_blocks_are_what_numpy_says_of_the_whole():
    """Far from zero too, where sums of squares would lose digits."""
    found = moments([ROWS[:7], ROWS[7:300], ROWS[300:]])
    np.testing.assert_allclose(found.mean, ROWS.mean(axis=0), rtol=1e-13)
    expected = np.cov(ROWS, rowvar=False, bias=True)
    np.testing.assert_allclose(found.covariance(), expected, rtol=1e-9, atol=1e-9)
    assert found.count == 500


def test_sums_of_two_and_parts():
    """Two halves make the whole, and some dimensions are those of the whole."""
    whole = Moments.sum(moments([ROWS[:200]]), moments([ROWS[200:]]))
    expected = np.cov(ROWS[:, 3:7], rowvar=False, bias=True)
    np.testing.assert_allclose(whole.covariance(part=slice(3, 7)), expected, rtol=1e-9, atol=1e-9)


def test_about_another_mean():
    other = ROWS.mean(axis=0) + np.arange(12)
    found = moments([ROWS]).covariance(other)
    away = ROWS - other
    np.testing.assert_allclose(found, away.T @ away / len(ROWS), rtol=1e-8, atol=1e-8)

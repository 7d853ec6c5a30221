"""Transforms: weights, components, estimates of bits, and their rounding to integers."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from kvq_cli.steps.rounding import Place, forward_of, group_of
from kvq_cli.steps.transforms import (
    DEAD,
    FINEST,
    FLOOR,
    SILENT,
    STEP,
    Transform,
    Weights,
    bits,
    held_bits,
    plain_bits,
    principal,
)
from kvq_cli.words import Role

HEADS, CHANNELS = 3, 8
SIZE = HEADS * CHANNELS


def covariance(rank=SIZE, noise=0.0, seed=0):
    axes = np.random.default_rng(seed).standard_normal((SIZE, rank)) * 0.8 ** np.arange(rank)
    return axes @ axes.T + noise * np.eye(SIZE)


def weights(seed=1):
    axes = np.random.default_rng(seed).standard_normal((HEADS, CHANNELS, CHANNELS))
    return Weights.of(axes @ axes.swapaxes(1, 2))


def block(parts):
    found = np.zeros((SIZE, SIZE))
    for at, part in enumerate(parts):
        found[at * CHANNELS : (at + 1) * CHANNELS, at * CHANNELS : (at + 1) * CHANNELS] = part
    return found


def test_roots_of_weights():
    """Root times root is the weight, its inverse its own; small eigenvalues are raised."""
    axes = np.random.default_rng(1).standard_normal((HEADS, CHANNELS, CHANNELS))
    matrices = axes @ axes.swapaxes(1, 2)
    found = Weights.of(matrices)
    unit = np.broadcast_to(np.eye(CHANNELS), matrices.shape)
    np.testing.assert_allclose(found.root @ found.inverse, unit, atol=1e-9)
    low = Weights.of(np.diag([1.0, 1.0, 1.0, 0.0])[None])
    assert (low.root[0] ** 2)[3, 3] == pytest.approx(FLOOR * 0.75)


def test_components_are_uncorrelated_and_descend():
    """Their covariance is diagonal, and restoring all of them gives the rows back."""
    found = principal(np.zeros(SIZE), covariance(noise=0.1), weights(), SIZE)
    after = found.forward.T @ covariance(noise=0.1) @ found.forward
    np.testing.assert_allclose(after, np.diag(found.variances), atol=1e-9 * after.max())
    assert (np.diff(found.variances) <= 0).all()
    np.testing.assert_allclose(found.forward @ found.restore, np.eye(SIZE), atol=1e-9)
    # What an error of a coefficient weighs is its square: the steps of all are one.
    seen = block(weights().root) @ found.restore.T
    np.testing.assert_allclose(seen.T @ seen, np.eye(SIZE), atol=1e-9)


def test_silent_components_are_left_out():
    """Those of too small a deviation, and those beyond the most; what is lost is told."""
    quiet = np.diag([1.0, 4.0, *[(0.9 * SILENT * FINEST) ** 2] * (SIZE - 2)])
    one = Weights.of(np.broadcast_to(np.eye(CHANNELS), (HEADS, CHANNELS, CHANNELS)))
    found = principal(np.zeros(SIZE), quiet, one, SIZE)
    assert found.variances.tolist() == pytest.approx([4.0, 1.0])
    assert found.lost == pytest.approx((SIZE - 2) * (0.9 * SILENT * FINEST) ** 2 / 5, rel=1e-3)
    found = principal(np.zeros(SIZE), quiet, one, 1)
    assert found.variances.tolist() == pytest.approx([4.0])
    assert found.lost == pytest.approx(0.2, rel=1e-3)


@pytest.mark.parametrize("size", [0.1, 0.5, 1.0, 4.0, 30.0])
def test_bits_are_the_entropy_of_the_quantised_family(size):
    """Of a Laplace distribution, cell by cell."""
    rate = math.sqrt(2) / size
    edges = [DEAD + at for at in range(int(60 * size) + 60)]
    cells = [1 - math.exp(-rate * DEAD)]
    for low, high in pairwise(edges):
        cells += [(math.exp(-rate * low) - math.exp(-rate * high)) / 2] * 2
    expected = -sum(each * math.log2(each) for each in cells if each > 0)
    assert bits(np.array([(size * STEP) ** 2]))[0] == pytest.approx(expected, rel=1e-6)
    assert bits(np.zeros(3)).tolist() == [0, 0, 0]


def test_bits_of_what_was_held_out():
    """By the second moment of the coefficients; without a transform by the weights' diagonals."""
    rows = np.random.default_rng(3).multivariate_normal(np.zeros(SIZE), covariance(), 400)
    found = principal(np.zeros(SIZE), covariance(noise=1e-3), weights(), SIZE)
    moment = rows.T @ rows / len(rows)
    expected = bits(np.mean((rows @ found.forward) ** 2, axis=0)).sum()
    assert held_bits(found, moment) == pytest.approx(expected, rel=1e-9)
    own = np.concatenate([np.diag(each @ each) for each in weights().root])
    expected = bits(np.mean(rows**2, axis=0) * own).sum()
    assert plain_bits(weights(), moment) == pytest.approx(expected, rel=1e-9)
    assert held_bits(found, moment) < plain_bits(weights(), moment)


def integers(transform):
    place = Place(Role.VALUE, 4, 1, HEADS, CHANNELS, None)
    group, forward = group_of(transform, place), forward_of(transform)
    into = forward.inward[:, None].astype(int) - forward.outward.astype(int)
    matrix = np.ldexp(forward.matrix.astype(float), into)
    back = np.ldexp(group.restore.astype(float), -group.exponents.astype(int))
    return group, forward, matrix, back


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_rounded_matrices_undo_each_other(scale):
    """To about a thousandth of the largest component, however large the rows are."""
    rows = scale**2 * covariance(noise=0.02)
    one = weights()
    found = principal(np.zeros(SIZE), rows, Weights(one.root / scale, one.inverse * scale), SIZE)
    group, forward, matrix, back = integers(found)
    assert (group.rank, group.place) == (len(found.variances), (Role.VALUE, 4, 1))
    deviations = np.sqrt(found.variances)
    off = deviations[:, None] * (back @ matrix - np.eye(group.rank))
    # Each column: by how much a coefficient is off, in its standard deviation.
    assert np.sqrt((off**2).sum(axis=0)).max() < 2e-3 * deviations.max()
    # And the matrix itself, by what goes into it, to half a unit of 2^14 and more.
    inward = np.ldexp(1.0, -forward.inward.astype(int))[:, None]
    near = np.abs(matrix - found.forward) * inward
    assert (near <= 2**-15 * (np.abs(found.forward) * inward).max(axis=0)).all()


def test_integers_fill_their_room():
    """Exponents put deviations, columns and norms where the spec wants them."""
    found = principal(np.zeros(SIZE), covariance(noise=0.02), weights(), SIZE)
    group, forward, _, _ = integers(found)
    deviations = np.ldexp(found.deviations, forward.inward.astype(int))
    assert ((deviations >= 2**9) & (deviations < 2**10)).all()
    largest = np.abs(forward.matrix.astype(int)).max(axis=0)
    assert ((largest >= 2**14) & (largest < 2**15)).all()
    norms = np.sqrt((group.restore.astype(float) ** 2).sum(axis=0))
    assert ((norms >= 2**11 - 8) & (norms < 2**12 + 8)).all()


def test_what_never_changes():
    """A dimension without variance, and rows that are all alike, have exponents 0."""
    still = np.diag([0.0, *np.ones(SIZE - 1)])
    one = Weights.of(np.broadcast_to(np.eye(CHANNELS), (HEADS, CHANNELS, CHANNELS)))
    _, forward, _, _ = integers(principal(np.zeros(SIZE), still, one, SIZE))
    assert forward.inward[0] == 0
    group, forward, _, _ = integers(principal(np.ones(SIZE), np.zeros((SIZE, SIZE)), one, SIZE))
    assert (group.rank, forward.matrix.shape) == (0, (SIZE, 0))
    assert group.exponents.tolist() == [0] * SIZE


def test_what_is_rounded_up_gets_another_exponent():
    """2^15 has no place in 16 bits, and is 2^14 of the next unit."""
    almost = np.array([[1 - 2**-17]])
    one = np.ones(1)
    found = forward_of(Transform(one, almost, almost, one, one, 0.0))
    assert (found.matrix.tolist(), found.inward.tolist()) == ([[2**14]], [9])
    assert found.outward.tolist() == [9 + 14]

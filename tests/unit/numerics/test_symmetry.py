"""symmetry: orbits, their order, and folding as the way to the nearest of an orbit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symmetry import Symmetry, expand, folded, recognise
from support.codewords import corners, plainly

EVERY = [
    Symmetry(1, (1,)),
    Symmetry(2, (1, 1)),
    Symmetry(2, (2,)),
    Symmetry(3, (1, 1, 1)),
    Symmetry(4, (1, 1, 1, 1)),
    Symmetry(4, (2, 2)),
    Symmetry(4, (4,)),
    Symmetry(8, (1,) * 8),
]
every_symmetry = pytest.mark.parametrize("symmetry", EVERY, ids=str)


def fold(symmetry, points):
    found = np.ascontiguousarray(np.asarray(points, np.float32).T)
    ways = np.empty(found.shape[1], np.intp)
    symmetry.fold(found, ways, Scratch())
    return found.T, ways


@every_symmetry
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_way_leads_back(symmetry, data):
    """Every point is what its base becomes by its way."""
    row = st.tuples(*[st.integers(-3, 3)] * symmetry.block)
    points = np.array(data.draw(st.lists(row, min_size=1, max_size=9)))
    bases, ways = fold(symmetry, points)
    back = symmetry.unfold(bases)[np.arange(len(points)), ways]
    assert np.array_equal(back, points)


@every_symmetry
@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_an_orbit_is_all_that_folds_to_its_base(symmetry, data):
    """Once each, and nothing else."""
    row = data.draw(st.tuples(*[st.integers(-3, 3)] * symmetry.block))
    ((base,), _) = fold(symmetry, [row])
    orbit = symmetry.orbit(tuple(int(value) for value in base))
    assert len(set(orbit)) == len(orbit)
    assert row in orbit
    images = {tuple(each) for each in symmetry.unfold(base[None])[0].astype(int).tolist()}
    assert images == set(orbit)
    assert (fold(symmetry, orbit)[0] == base).all()


@pytest.mark.parametrize("symmetry", [each for each in EVERY if each.block < 8], ids=str)
def test_the_way_leads_to_the_lowest_of_the_nearest(symmetry):
    """For every small point and orbit, ties included: that is what the order is for."""
    levels = range(-3, 4) if symmetry.block < 4 else range(-2, 3)
    points = corners(levels, symmetry.block)
    _, ways = fold(symmetry, points)
    for base in folded(symmetry, corners(range(4), symmetry.block).astype(np.int16)):
        orbit = np.array(symmetry.orbit(base), np.int16)
        led = symmetry.unfold(np.array([base]))[0][ways]
        assert np.array_equal(led, orbit[plainly(points, orbit)]), base


@every_symmetry
def test_a_codebook_shows_its_symmetry(symmetry):
    """The one it was made with, or a larger one that it happens to have."""
    random = np.random.default_rng(symmetry.block)
    bases = folded(symmetry, random.integers(1, 90, (5, symmetry.block)).astype(np.int16))
    codewords = expand(symmetry, bases)
    found, rows = recognise(codewords)
    assert np.array_equal(expand(found, [tuple(row) for row in rows.tolist()]), codewords)
    assert len(rows) <= len(bases)


@every_symmetry
def test_another_order_is_no_symmetry(symmetry):
    """Two codewords of an orbit exchanged: found by searching all, ties would go wrong else."""
    codewords = expand(symmetry, [tuple(range(symmetry.block, 0, -1))])
    turned = codewords[::-1].copy()
    found, rows = recognise(turned)
    assert np.array_equal(expand(found, [tuple(row) for row in rows.tolist()]), turned)
    assert found == Symmetry(symmetry.block)

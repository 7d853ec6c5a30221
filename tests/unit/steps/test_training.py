"""training: the law, the design, unions of orbits, and that Lloyd's method makes them better."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.codecs.codebooks import Codebook
from kvq_cli.numerics.symmetry import Symmetry, recognise
from kvq_cli.steps.orbits import design, mirror, orbit_size, snapped
from kvq_cli.steps.training import Task, climb, error, filled, lloyd, measured, rounded, train

TASKS = [
    Task(64, 2, 64, Symmetry(2, (2,))),
    Task(32, 4, 32, Symmetry(4)),
    Task(96, 4, 256, Symmetry(4, (1, 1, 1, 1))),
    Task(48, 4, 1024, Symmetry(4, (2, 2))),
    Task(128, 4, 1024, Symmetry(4, (4,))),
]
every_task = pytest.mark.parametrize("task", TASKS, ids=str)


@pytest.mark.parametrize(("channels", "block"), [(32, 2), (32, 16), (80, 4), (256, 8)])
def test_blocks_have_the_moments_of_the_law(channels, block):
    """Coordinates have variance 1, squared norms that of D · Beta(k/2, (D - k)/2)."""
    blocks = Task(channels, block, 1, Symmetry(block)).blocks(200_000, 1).astype(np.float64)
    squares = (blocks**2).sum(axis=1)
    share, total = block / channels, channels / 2 + 1
    assert blocks.mean(axis=0) == pytest.approx(np.zeros(block), abs=0.01)
    assert squares.mean() == pytest.approx(block, rel=0.005)
    assert squares.var() == pytest.approx(share * (1 - share) / total * channels**2, rel=0.02)
    assert squares.max() <= channels


def test_blocks_are_the_same_again():
    """Seeds decide, and D, k and count with them."""
    task = Task(64, 4, 1, Symmetry(4))
    assert np.array_equal(task.blocks(50, 3), task.blocks(50, 3))
    assert not np.array_equal(task.blocks(50, 3), task.blocks(50, 4))


def test_radii_are_quantiles_of_the_companded_law():
    """For k = 2 they have the closed form sqrt(1 - (1 - q)^(4/D)), times sqrt(D)."""
    radii = np.linalg.norm(design(128, 2, 500, 0), axis=1)
    quantiles = (np.arange(500) + 0.5) / 500
    closed = np.sqrt(128 * (1 - (1 - quantiles) ** (4 / 128)))
    assert radii == pytest.approx(closed, rel=1e-6)


@pytest.mark.parametrize("block", [2, 3, 4, 8, 16])
def test_directions_are_spread(block):
    """Their mean is small, and no axis is preferred."""
    points = design(256, block, 4096, 0)
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    assert np.abs(unit.mean(axis=0)).max() < 0.02
    assert (unit**2).mean(axis=0) == pytest.approx(np.full(block, 1 / block), rel=0.05)


def test_mirrors_that_are_near():
    """Coordinates that are nearly 0 or nearly alike become so, and stay so."""
    symmetry = Symmetry(4, (2, 2))
    base = snapped(symmetry, np.array([1.0, 0.95, 0.6, 0.01]), 0.1)
    assert base == pytest.approx([0.975, 0.975, 0.6, 0])
    moved = mirror(symmetry, base) @ np.array([2, 1, 3, 4], np.float32)
    assert moved == pytest.approx([1.5, 1.5, 3, 0])
    assert orbit_size(symmetry, base) == 8 * 2
    assert orbit_size(Symmetry(4, (4,)), np.array([3.0, 2, 1, 0])) == 8 * 24
    assert orbit_size(Symmetry(4), base) == 1


@every_task
def test_orbits_are_as_many_as_asked_for(task):
    """What is drawn, trained and rounded is a codebook of N codewords with the symmetry."""
    random = np.random.default_rng(0)
    begun = None
    while begun is None:
        begun = filled(task, None, 0.2, random)
    blocks = task.folded(20_000, 0)
    ended = lloyd(blocks, begun, 12)
    assert error(blocks, ended.points) < error(blocks, begun.points)
    codewords = rounded(task, ended)
    assert codewords.shape == (task.size, task.block)
    assert len(recognise(codewords)[1]) <= len(ended.points)
    found = measured(Codebook.of(codewords), task.blocks(20_000, 1))
    assert found == pytest.approx(error(task.folded(20_000, 1), ended.points), rel=0.01)


def test_a_climb_ends_higher_than_it_began():
    """More turns, a smaller error; the same seed, the same codebook."""
    task = Task(64, 4, 256, Symmetry(4, (1, 1, 1, 1)))
    short = climb(task, None, count=4000, turns=4, seed=1)
    long = climb(task, None, count=4000, turns=30, seed=1)
    again = climb(task, None, count=4000, turns=30, seed=1)
    assert long[0] < short[0]
    assert np.array_equal(long[1].points, again[1].points)


def test_a_codebook_of_other_numbers():
    """D, k and N that none is built in for: nearly as good as its neighbours."""
    task = Task(48, 4, 64, Symmetry(4, (1, 1, 1, 1)))
    book = train(task, blocks=20_000, turns=20)
    assert book.codewords.shape == (64, 4)
    # Between the (4, 32) and (4, 256) of the table.
    assert 0.093 < measured(book, task.blocks(50_000, 9)) < 0.2


def test_what_cannot_be_made():
    """More codewords than points that a start is drawn from."""
    with pytest.raises(ValueError):
        climb(Task(32, 1, 4000, Symmetry(1)), None, count=100, turns=1, seed=0)

"""The search: the same indices as that of every pair, whatever is close together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.contract.compat import search


def by_hand(block: list[float], codewords: list[list[float]]) -> tuple[int, float]:
    best, least = 0, float("inf")
    for at, word in enumerate(codewords):
        total = 0.0
        for left, right in zip(block, word, strict=True):
            total += (left - right) * (left - right)
        if total < least:
            best, least = at, total
    return best, least


def assert_same(blocks: np.ndarray, codewords: np.ndarray) -> None:
    indices, distances = search.nearest(blocks, codewords)
    expected = [by_hand(block, codewords.tolist()) for block in blocks.tolist()]
    assert list(zip(indices.tolist(), distances.tolist(), strict=True)) == expected
    assert search.nearest_exactly(blocks, codewords).tolist() == indices.tolist()


@pytest.mark.parametrize(("k", "size"), [(2, 2), (3, 7), (4, 256), (16, 33), (256, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e-20, 1e-40, 30.0])
def test_indices_and_distances_are_exact(k: int, size: int, scale: float) -> None:
    """Small, large and subnormal codewords are told apart as float64 does."""
    rng = np.random.default_rng(k * size)
    assert_same(rng.normal(size=(60, k)), rng.normal(size=(size, k)) * scale)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 1e-17, 1e-16, 1e-9, 1e-7, 1e-5]))
def test_near_ties_are_decided_exactly(seed: int, apart: float) -> None:
    """Codewords that differ in the last bits, or not at all, are told apart as float64 does."""
    rng = np.random.default_rng(seed)
    word = rng.normal(size=4) / 4
    codewords = word + apart * rng.integers(-3, 4, (9, 4))
    assert_same(word + rng.normal(size=(20, 4)) * rng.choice([0.0, 1e-8, 0.1]), codewords)


def test_the_first_of_equals_is_taken() -> None:
    """A block halfway between codewords belongs to the one of the lower number."""
    codewords = np.array([[9.0, 9.0], [1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    indices, distances = search.nearest(np.array([[0.0, 0.5], [1.0, 0.0]]), codewords)
    assert indices.tolist() == [1, 1]
    assert distances.tolist() == [1.25, 0.0]


def test_tiles_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """How many pairs are looked at together changes nothing; no blocks have no indices."""
    rng = np.random.default_rng(1)
    blocks, codewords = rng.normal(size=(50, 4)), rng.normal(size=(8, 4))
    expected = search.nearest(blocks, codewords)[0].tolist()
    for tile in (1, 8, 24, 1000):
        monkeypatch.setattr(search, "_TILE", tile)
        monkeypatch.setattr(search, "_EXACT_TILE", tile)
        assert_same(blocks, codewords)
        assert search.nearest(blocks, codewords)[0].tolist() == expected
    assert search.nearest(blocks[:0], codewords)[0].shape == (0,)


def test_few_blocks_are_looked_at_twice() -> None:
    """The bound is tight enough to be of use."""
    rng = np.random.default_rng(2)
    blocks, codewords = rng.normal(size=(4000, 4)) / 11, rng.normal(size=(256, 4)) / 11
    weights = search.weights_of(codewords)
    assert len(search.narrowed(blocks, codewords, weights)[1]) < 40

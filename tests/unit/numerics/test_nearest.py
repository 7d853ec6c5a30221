"""nearest: every search is the exhaustive one, ties and outliers included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.codecs.codebooks import SIZES, codebook
from kvq_cli.numerics.cells import Cells
from kvq_cli.numerics.keys import LARGEST, Keys, index_type
from kvq_cli.numerics.nearest import gather, grid, search
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symmetry import Symmetry
from support.codewords import assert_nearest, corners, found_by, hard, plainly

every_size = pytest.mark.parametrize(("block", "size"), SIZES)
SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 6))


def law(channels, block, count, seed=0):
    """Blocks of rotated rows, in units of the grid."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((count, channels))
    rows *= np.sqrt(channels / (rows * rows).sum(axis=1, keepdims=True))
    return rows[:, :block] * 2.0 ** grid(block)


def books(shape, seed, most):
    """Codewords without order, some of them alike."""
    random = np.random.default_rng(seed)
    found = random.integers(-most, most + 1, shape).astype(np.int16)
    found[shape[0] // 2 :: 3] = found[0]
    return found


@every_size
@pytest.mark.parametrize("channels", [32, 128, 256])
def test_usual_blocks(block, size, channels):
    """Blocks of the law go to the codeword that an exhaustive search finds."""
    book = codebook(channels, block, size)
    assert_nearest(book.search, law(channels, block, 3000), book.codewords)


@every_size
def test_hard_blocks(block, size):
    """Ties, half units, points on mirrors, outliers up to a float's end."""
    book = codebook(80, block, size)
    assert_nearest(book.search, hard(book.codewords), book.codewords)


@every_size
def test_small_points(block, size):
    """All points of a small grid around 0, where ties of an orbit lie."""
    book = codebook(64, block, size)
    levels = {2: range(-40, 41), 4: range(-3, 4), 8: (-1, 0, 2), 16: (0, -1)}[block]
    assert_nearest(book.search, corners(levels, block)[:9000], book.codewords)


@settings(deadline=None, max_examples=80)
@given(shape=SHAPES, seed=st.integers(0, 1 << 16), most=st.sampled_from([1, 3, 200, LARGEST]))
def test_any_codebook(shape, seed, most):
    """Whatever its size and symmetry, codewords alike among them."""
    codewords = books(shape, seed, most)
    blocks = np.random.default_rng(seed).integers(-2 * most, 2 * most + 1, (200, shape[1]))
    assert_nearest(search(codewords), blocks / 2, codewords)


def test_blocks_beyond_reach_are_searched_as_well():
    """The same with float32 for hardly any block, for some, and for none."""
    for most, reached in ((8, True), (150, True), (LARGEST, False)):
        codewords = books((40, 4), 1, most)
        keys = Keys.of(codewords)
        assert (keys.reach >= 0) is reached
        assert_nearest(keys, np.random.default_rng(2).normal(0, most, (3000, 4)), codewords)


def test_bounds_of_keys_hold_for_every_built_in_codebook():
    """Sums of magnitudes, however they are ordered, stay below 2**24 up to the reach."""
    for block, size in SIZES:
        book = codebook(256, block, size)
        keys = book.search.keys if isinstance(book.search, Cells) else book.search
        spread = 1 << (len(keys.matrix) - 1).bit_length()
        rows = keys.matrix[:, :-1] / (2 * spread)
        norms = (rows * rows).sum(axis=1)
        if keys.reach < 0:
            continue
        product = 2 * np.sqrt(keys.reach * norms)
        total = product if keys.symmetry.runs else product + norms
        assert (spread * (total + 1) <= 1 << 24).all()
        assert (spread * (norms + 1) <= 1 << 24).all()
        assert np.array_equal(keys.narrow, keys.matrix)
        # Hardly a block of the law lies beyond.
        blocks = np.rint(law(256, block, 20000))
        assert ((blocks * blocks).sum(axis=1) > keys.reach).mean() < 1e-3


def test_an_outlier_goes_where_it_points():
    """A row that is one coordinate, the root of D, is not clipped: exhaustive search agrees."""
    for block, size in SIZES:
        book = codebook(256, block, size)
        blocks = np.eye(block) * 16 * 2.0 ** grid(block)
        found = book.codewords[found_by(book.search, blocks, book.codewords)].astype(int)
        assert (np.diag(found) == found.max(axis=1)).all()


def test_scratch_and_shape_change_nothing():
    """Tiles of any length, one scratch for all."""
    scratch = Scratch()
    for block, size in SIZES:
        book = codebook(96, block, size)
        blocks = law(96, block, 5000)
        expected = plainly(blocks, book.codewords)
        for count in (1, 31, 2048, 2049, 5000, 7):
            found = found_by(book.search, blocks[:count], book.codewords, scratch)
            assert np.array_equal(found, expected[:count])


@pytest.mark.parametrize("size", [64, 256])
def test_corners_of_cells(size):
    """The four corners of every cell of the plane, and what lies outside next to it."""
    book = codebook(128, 2, size)
    edge = np.arange(-1024, 1024, 4)
    lines = np.sort(np.concatenate([edge, edge + 3, [-1025, 1024]]))[::5]
    assert_nearest(book.search, corners(lines, 2), book.codewords)


@pytest.mark.long
def test_many_pairs():
    """More codewords and cells of several than 16 bits can number."""
    random = np.random.default_rng(5)
    codewords = random.integers(-1000, 1001, (6000, 2)).astype(np.int16)
    cells = Cells.of(codewords)
    assert len(cells.second) > 16 << 16
    assert_nearest(cells, random.integers(-1100, 1101, (3000, 2)), codewords)


@pytest.mark.long
@pytest.mark.parametrize("channels", [32, 128])
@pytest.mark.parametrize("size", [64, 256])
def test_every_point_of_the_plane(size, channels):
    """All 2**22 of them."""
    book = codebook(channels, 2, size)
    side = np.arange(-1024, 1024)
    for row in side:
        blocks = np.column_stack([side, np.full_like(side, row)])
        assert_nearest(book.search, blocks, book.codewords)


@every_size
def test_gather_brings_codewords(block, size):
    """Row by row."""
    book = codebook(192, block, size)
    indices = np.random.default_rng(0).integers(0, size, 999).astype(index_type(size))
    out = np.empty((999, block), np.float32)
    gather(indices, book.points, out, Scratch())
    assert np.array_equal(out, book.codewords[indices])


def test_refusals():
    """Codewords out of range, none at all, too many coordinates."""
    for wrong in (
        np.full((2, 2), LARGEST + 1, np.int16),
        np.full((2, 4), -LARGEST - 1, np.int16),
        np.empty((0, 4), np.int16),
        np.zeros((2, 65), np.int16),
    ):
        with pytest.raises(ValueError):
            search(wrong)


def test_a_symmetry_is_used():
    """Else 4,096 codewords would take a minute."""
    expected = {(4, 256): 1, (4, 1024): 2, (4, 4096): 4, (8, 256): 1}
    for (block, size), length in expected.items():
        found = codebook(128, block, size).search.symmetry
        assert found == Symmetry(block, (length,) * (block // length))

"""rows: maxima on bits, however the page is cut."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.numerics import rows, tiles
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec


def words(dtype, shape):
    rng = np.random.default_rng(3)
    return rng.integers(0, 1 << (8 * dtype.size), shape).astype(dtype.bits)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 33, 64, 80, 128, 256])
def test_peaks_are_the_largest_magnitudes(dtype, axis, channels):
    """Peaks equal a plain maximum over magnitude bits, for every length of row."""
    bits = words(dtype, (3, 5, channels))
    expected = (bits & ((1 << (8 * dtype.size - 1)) - 1)).max(axis=axis, keepdims=True)
    assert np.array_equal(rows.peaks(bits, dtype, axis, Scratch()), expected)


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("size", [1, 16, 50, 1 << 20])
def test_peaks_do_not_depend_on_tiles(axis, size, monkeypatch):
    """Tiles of one token and tiles of all heads give the same maxima."""
    bits = words(DType.F16, (3, 9, 8))
    whole = rows.peaks(bits, DType.F16, axis, Scratch()).copy()
    monkeypatch.setattr(rows, "tiles", lambda shape: tiles.tiles(shape, size))
    assert np.array_equal(rows.peaks(bits, DType.F16, axis, Scratch()), whole)


@pytest.mark.parametrize("dtype", list(DType))
def test_first_non_finite_is_the_first(dtype):
    """The first offender in head, token, channel order is named, and every head with one."""
    spec = PageSpec(3, 4, 5, dtype)
    bits = np.zeros(spec.shape, dtype.bits)
    infinity = 0x7F800000 if dtype is DType.F32 else 0x7F80 if dtype is DType.BF16 else 0x7C00
    bits[1, 3, 0] = infinity
    bits[1, 2, 4] = infinity + 1
    bits[2, 0, 0] = infinity
    where, heads = rows.first_non_finite(Page(spec, bits))
    assert where == (1, 2, 4)
    assert heads.tolist() == [False, True, True]


@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 100, 8)])
def test_tiles_cover_a_page_once(shape, size):
    """Every element lies in exactly one tile."""
    seen = np.zeros(shape, int)
    for tile in tiles.tiles(shape, size):
        seen[tile] += 1
    assert (seen == 1).all()

"""levels: frozen tables are what the density gives; codes are the nearest levels."""

from __future__ import annotations

import make_levels
import numpy as np
import pytest

from kvq_cli.numerics.levels import UNIT, levels
from kvq_cli.numerics.packing import pack_codes, take_codes
from kvq_cli.numerics.scratch import Scratch

WIDTHS = range(1, 9)


def test_both_copies_are_one():
    """What the program uses is what formats/ has."""
    package, contract = make_levels.TARGETS
    assert package.read_bytes() == contract.read_bytes()
    assert package.stat().st_size == 80 * 255 * 2


@pytest.mark.parametrize("order", [8, 32, 64, 80, 128, 256, 640])
def test_levels_solve_their_equations(order):
    """Recomputed, they are the frozen ones; each is the mean of its cell."""
    for bits in (1, 2, 3, 4, 6):
        found = levels(order, bits).positive
        assert np.array_equal(np.rint(make_levels.levels(order, bits) * UNIT), found)


@pytest.mark.long
def test_all_levels():
    """Every one of 640 tables."""
    assert make_levels.frozen() == make_levels.TARGETS[0].read_bytes()


@pytest.mark.parametrize("order", [64, 128, 256])
def test_levels_are_the_means_of_their_cells(order):
    """Held against a sum over a fine grid, which shares nothing with the tool's."""
    z = (np.arange(400_000) + 0.5) / 400_000 * np.sqrt(order)
    mass = (1 - z * z / order) ** ((order - 3) / 2)
    for bits in (1, 3, 5):
        found = levels(order, bits).positive / UNIT
        cells = np.searchsorted((found[1:] + found[:-1]) / 2, z)
        means = np.bincount(cells, mass * z) / np.bincount(cells, mass)
        assert np.abs(means - found).max() < 2 / UNIT


def packed_of(quantiser, codes, scratch):
    held = take_codes((1, *codes.shape), scratch)
    held[0] = codes
    out = np.empty((1, len(codes), quantiser.row_bytes), np.uint8)
    pack_codes(held, quantiser.bits, out, scratch)
    return out[0]


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("order", [8, 24, 128, 640])
def test_every_coordinate_gets_the_nearest_level(bits, order):
    """All numbers that z can be; half way between two levels the smaller magnitude is taken."""
    quantiser, scratch = levels(order, bits), Scratch()
    z = np.arange(-32767, 32768).astype(np.int16)
    z = np.resize(z, (len(z) // order + 1, order))
    codes = np.empty(z.shape, np.uint8)
    quantiser.code(z.copy(), codes, scratch)
    table = np.concatenate([-quantiser.positive[::-1], quantiser.positive]).astype(np.int64)
    distances = np.abs(4 * z.astype(np.int64) - table[codes])
    best = np.full(z.shape, 1 << 40)
    for level in table:
        np.minimum(best, np.abs(4 * z.astype(np.int64) - level), out=best)
    assert int((distances - best).max()) <= 4  # thresholds are multiples of 2**-10
    packed = packed_of(quantiser, codes, scratch)
    assert np.array_equal(quantiser.restore(packed, scratch), table[codes])
    weights = np.rint(table * table / 2**14)[codes].sum(axis=1)
    assert np.array_equal(quantiser.weigh(packed, scratch), weights)


@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_are_symmetric(bits):
    """The code of -z mirrors that of z."""
    quantiser, scratch = levels(128, bits), Scratch()
    z = np.arange(1, 30_001, dtype=np.int16).reshape(-1, 8)[:128].reshape(-1, 128)
    plus, minus = np.empty(z.shape, np.uint8), np.empty(z.shape, np.uint8)
    quantiser.code(z.copy(), plus, scratch)
    quantiser.code(-z, minus, scratch)
    assert np.array_equal(plus.astype(int) + minus, np.full(z.shape, (1 << bits) - 1))


@pytest.mark.parametrize("order", range(8, 641, 8))
def test_no_sum_of_levels_passes_what_floats_hold(order):
    """Rows of the largest levels, which no encoder writes, are still rotated exactly."""
    assert order * int(levels(order, 8).positive[-1]) < 2**24

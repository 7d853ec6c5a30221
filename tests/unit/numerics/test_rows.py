"""rows: maxima and ranges on bits, of rows and of groups; tiles."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from kvq_cli.numerics import rows, tiles
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec

FLOATS = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOP = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}
every_dtype = pytest.mark.parametrize("dtype", list(DType))
every_group = pytest.mark.parametrize(
    "groups",
    [Groups("token"), Groups("channel"), Groups("token", 32), Groups("channel", 4)],
    ids=str,
)


def words(dtype, shape):
    rng = np.random.default_rng(3)
    return rng.integers(0, 1 << (8 * dtype.size), shape).astype(dtype.bits)


def finite(dtype, shape):
    """Bits of finite numbers of every size, with zeros of both signs and equal magnitudes."""
    sign = 1 << (8 * dtype.size - 1)
    bits = words(dtype, shape)
    bits = np.where((bits & (sign - 1)) >= TOP[dtype], 0, bits).astype(dtype.bits)
    bits[:, ::3] &= np.dtype(dtype.bits).type(sign | 3)
    return bits


def by_group(groups, bits):
    """Every group as an index of the page, in the order of what there is one of per group."""
    _, tokens, channels = bits.shape
    size = min(groups.size, max(tokens, channels))
    for place in np.ndindex(groups.shape(bits.shape)):
        head, first, second = place
        if groups.axis == "token":
            yield place, (head, first, slice(second * size, (second + 1) * size))
        else:
            yield place, (head, slice(first * size, (first + 1) * size), second)


@every_dtype
@every_group
@pytest.mark.parametrize("channels", [1, 2, 3, 7, 33, 64, 80, 128, 256])
def test_peaks_are_the_largest_magnitudes(dtype, groups, channels):
    """Peaks equal a plain maximum over magnitude bits, for every length of row."""
    bits = words(dtype, (3, 5, channels))
    magnitudes = bits & ((1 << (8 * dtype.size - 1)) - 1)
    found = rows.peaks(bits, dtype, groups, Scratch())
    for place, group in by_group(groups, bits):
        assert found[place] == magnitudes[group].max()


@every_dtype
@every_group
def test_signed_peaks_prefer_the_negative_one(dtype, groups):
    """The element of largest magnitude with its sign; of two equal ones the negative."""
    bits = finite(dtype, (2, 13, 70))
    values = bits.view(FLOATS[dtype]).astype(np.float64)
    found = rows.signed_peaks(bits, dtype, groups, Scratch())
    assert found.dtype == bits.dtype
    numbers = found.view(FLOATS[dtype]).astype(np.float64)
    for place, group in by_group(groups, bits):
        block = values[group]
        peak = np.abs(block).max()
        assert numbers[place] == (-peak if (block == -peak).any() else peak)


@every_dtype
@every_group
def test_ranges_are_the_least_and_the_greatest(dtype, groups):
    """As numbers, with minus zero below plus zero."""
    bits = finite(dtype, (2, 13, 70))
    values = bits.view(FLOATS[dtype]).astype(np.float64)
    found = rows.ranges(bits, dtype, groups, Scratch())
    least, greatest = (each.view(FLOATS[dtype]).astype(np.float64) for each in found)
    for place, group in by_group(groups, bits):
        block = values[group]
        assert least[place] == block.min()
        assert greatest[place] == block.max()
        if not block.any():
            assert np.signbit(least[place]) == np.signbit(block).any()
            assert np.signbit(greatest[place]) == np.signbit(block).all()


@every_dtype
@every_group
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("extra", [0, 1])
def test_no_infinity_or_nan_hides(dtype, groups, negative, extra):
    """An infinity or NaN of either sign shows in peaks, signed peaks and ranges."""
    bits = finite(dtype, (2, 13, 70))
    assert rows.all_finite(bits, dtype)
    sign = 1 << (8 * dtype.size - 1) if negative else 0
    bits[1, 5, 68] = TOP[dtype] + extra + sign
    for extreme in (rows.peaks, rows.signed_peaks):
        assert not rows.all_finite(extreme(bits, dtype, groups, Scratch()), dtype)
    least, greatest = rows.ranges(bits, dtype, groups, Scratch())
    assert rows.all_finite(greatest if negative else least, dtype)
    assert not rows.all_finite(least if negative else greatest, dtype)


@every_dtype
def test_strided_bits_have_the_same_extremes(dtype):
    """Bits need not be contiguous, and are not written to."""
    larger = finite(dtype, (2, 26, 70))
    bits = larger[:, ::2]
    copy, groups = bits.copy(), Groups("token", 32)
    for extreme in (rows.peaks, rows.signed_peaks, rows.ranges):
        found = np.asarray(extreme(bits, dtype, groups, Scratch()))
        assert np.array_equal(found, np.asarray(extreme(copy, dtype, groups, Scratch())))
    assert np.array_equal(bits, copy)


@every_dtype
def test_values_are_the_numbers(dtype):
    """Bits of finite numbers as float32, exactly."""
    bits = finite(dtype, (2, 13, 70))
    expected = bits.view(FLOATS[dtype]).astype(np.float32)
    assert np.array_equal(rows.values(bits, dtype).view(np.uint32), expected.view(np.uint32))


@every_dtype
def test_first_non_finite_is_the_first(dtype):
    """The first offender in head, token, channel order is named, and every head with one."""
    spec = PageSpec(3, 4, 5, dtype)
    bits = np.zeros(spec.shape, dtype.bits)
    bits[1, 3, 0] = TOP[dtype]
    bits[1, 2, 4] = TOP[dtype] + 1
    bits[2, 0, 0] = TOP[dtype]
    where, heads = rows.first_non_finite(Page(spec, bits))
    assert where == (1, 2, 4)
    assert heads.tolist() == [False, True, True]


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("size", [1, 7, 64, 1000])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 100, 8)])
def test_tiles_cover_a_page_once(shape, size, whole):
    """Every element lies in exactly one tile, and whole tiles cut no head."""
    seen = np.zeros(shape, int)
    for tile in tiles.tiles(shape, whole=whole, size=size):
        seen[tile] += 1
        assert not whole or tile[1] == slice(0, shape[1])
    assert (seen == 1).all()


@pytest.mark.parametrize("tile", [(slice(1, 2), slice(2, 4)), (slice(0, 3), slice(0, 5))])
def test_part_follows_a_tile_where_there_is_something_to_follow(tile):
    """Axes of length 1 serve every head and token; the others are cut like the page."""
    page = np.arange(3 * 5 * 7).reshape(3, 5, 7)
    assert np.array_equal(tiles.part(page, tile), page[tile])
    assert np.array_equal(tiles.part(page[:, :1], tile), page[tile[0], :1])
    assert np.array_equal(tiles.part(page[:1], tile), page[:1, tile[1]])

"""centre: means against the plain statement of the spec, and pages less their means."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.numerics import rows, tiles
from kvq_cli.numerics.centre import Means, blocks, centre, widened
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec

FLOATS = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOP = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}
TOKENS = [1, 2, 3, 5, 7, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 511, 512, 513, 1000, 1024]
every_dtype = pytest.mark.parametrize("dtype", list(DType))


def page(values, dtype):
    values = np.asarray(values, np.float64)
    with np.errstate(under="ignore"):
        bits = values.astype(np.float32).astype(FLOATS[dtype]).view(dtype.bits)
    return Page(PageSpec(*values.shape, dtype), bits)


def numbers(bits, dtype):
    return bits.view(FLOATS[dtype]).astype(np.float32)


def plain_means(original):
    """formats/codecs/README.md, section "Centring", steps 1 to 4, head by head."""
    dtype, tokens = original.spec.dtype, original.spec.tokens
    found = np.zeros((original.spec.heads, 1, original.spec.channels), dtype.bits)
    for head, values in enumerate(numbers(original.bits, dtype).astype(np.float64)):
        peak = np.abs(values).max()
        if peak >= 2.0**126:
            continue
        exponent = max(int(np.frexp(peak)[1]) if peak else -126, -126)
        power = min(21 - exponent, 126)
        sample = values[:: math.ceil(tokens / 64)]
        # Both steps are exact in float64, so this is one rounding, half to even.
        integers = np.rint(np.ldexp(sample, power)).astype(np.int64)
        assert np.abs(integers).max() <= 1 << 21
        total = integers.sum(axis=0)
        assert np.abs(total).max() <= 1 << 27
        mean = np.ldexp(total / np.float64(len(sample)), -power).astype(np.float32)
        found[head, 0] = mean.astype(FLOATS[dtype]).view(dtype.bits)
    return found


def taken_off(original):
    """Means and what is left, as encoders get them."""
    spec, scratch = original.spec, Scratch()
    dtype = spec.dtype
    means = np.full((spec.heads, 1, spec.channels), 0xA5, dtype.bits)
    left = np.full(spec.shape, np.nan, np.float32)
    for block in blocks(original, scratch, whole=True):
        peaks = rows.values(rows.peaks(block.bits, dtype, Groups("token"), scratch), dtype)
        largest = peaks.max(axis=1, keepdims=True)
        done = centre(widened(block), largest, means[block.tile[0]], dtype, scratch)
        assert done.unit == 1
        assert done.dtype is DType.F32
        assert np.array_equal(done.bits, done.values.view(np.uint32))
        left[done.tile] = done.values
    return means, left


def check(original):
    before = original.bits.copy()
    means, left = taken_off(original)
    assert np.array_equal(means, plain_means(original))
    dtype = original.spec.dtype
    expected = numbers(original.bits, dtype) - numbers(means, dtype)
    assert np.array_equal(left, expected)
    assert np.array_equal(original.bits, before)
    return means


def wide(dtype, shape, seed=0):
    """Channels of all sizes, with a constant in each."""
    rng = np.random.default_rng(seed)
    low, high = (-24, 14) if dtype is DType.F16 else (-145, 124)
    size = np.exp2(rng.uniform(low, high, (shape[0], 1, shape[2])))
    return size * (rng.uniform(-1, 1, (shape[0], 1, shape[2])) + 0.1 * rng.uniform(-1, 1, shape))


@every_dtype
@pytest.mark.parametrize("tokens", TOKENS)
def test_means_are_the_stated_arithmetic(dtype, tokens):
    """For any number of tokens, powers of two and others."""
    check(page(wide(dtype, (3, tokens, 9), tokens), dtype))


@every_dtype
@pytest.mark.parametrize("tokens", [4096, 40000, 65535, 65536])
@pytest.mark.parametrize("kind", ["wide", "highest", "lowest", "both"])
def test_long_pages_do_not_overflow(dtype, tokens, kind):
    """Sums of the largest integers there can be stay within 32 bits."""
    values = wide(dtype, (1, tokens, 3), tokens)
    if kind != "wide":
        values[:] = 65504 if dtype is DType.F16 else 2.0**126 * (1 - 2.0**-8)
        values[:] *= -1 if kind == "lowest" else 1
    if kind == "both":
        values[:, : tokens // 2] *= -1
    means = check(page(values, dtype))
    if kind in ("highest", "lowest"):
        assert np.array_equal(numbers(means, dtype), values[:, :1])


@every_dtype
def test_constant_channels_have_their_constant(dtype):
    """A channel that does not change is left with zeros."""
    constants = np.array([[[60.0, -3.5, 0.0, 1.0, 0.25, 48.0]]])
    means, left = taken_off(page(np.repeat(constants, 77, axis=1), dtype))
    assert np.array_equal(numbers(means, dtype), constants)
    assert not left.any()


@every_dtype
def test_means_are_near(dtype):
    """Each differs from the true mean by little more than half its last place."""
    original = page(wide(dtype, (2, 61, 20)), dtype)
    exact = numbers(original.bits, dtype).astype(np.float64)
    means = numbers(taken_off(original)[0], dtype).astype(np.float64)
    digits = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}[dtype]
    peak = np.abs(exact).max(axis=(1, 2), keepdims=True)
    far = np.abs(means - exact.mean(axis=1, keepdims=True))
    assert (far <= 2.0**-digits * np.abs(means) + 2.0**-20 * peak + 2.0**-25).all()


@pytest.mark.parametrize("dtype", [DType.BF16, DType.F32])
def test_heads_that_reach_the_top_are_left_alone(dtype):
    """From 2**126 on a head's means are 0; the head beside it has its own."""
    values = np.ones((4, 4, 3))
    values[0, 2, 1] = 2.0**126
    values[1, 2, 1] = -(2.0**126) * (1 - 2.0**-8)
    values[2] = -(2.0**127)
    means = numbers(check(page(values, dtype)), dtype)
    assert not means[[0, 2]].any()
    assert means[1, 0, 1] < -(2.0**123)
    assert (means[3] == 1).all()


@every_dtype
def test_zeros_have_mean_zero(dtype):
    """A zero head, and a zero channel, with zeros of either sign."""
    values = np.zeros((2, 6, 4))
    values[:, ::2] = -0.0
    values[1, :, 2] = 5
    means = check(page(values, dtype))
    assert not means[0].any()
    assert not means[1, 0, [0, 1, 3]].any()


@every_dtype
@pytest.mark.parametrize("tokens", [1, 2, 3, 257])
def test_subnormal_heads_have_means(dtype, tokens):
    """A head of nothing but subnormals: its integers are as coarse as its factor allows."""
    rng = np.random.default_rng(tokens)
    mantissa = {DType.F16: 10, DType.BF16: 7, DType.F32: 23}[dtype]
    bits = rng.integers(0, 1 << mantissa, (3, tokens, 5)).astype(dtype.bits)
    bits[1] &= 3
    bits[2, :, ::2] |= np.dtype(dtype.bits).type(1 << (8 * dtype.size - 1))
    check(Page(PageSpec(3, tokens, 5, dtype), bits))


@every_dtype
@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 9)),
    seed=st.integers(0, 1 << 16),
)
def test_any_finite_page_has_the_stated_means(dtype, shape, seed):
    """Arbitrary bits, most of them far from any cache."""
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 1 << (8 * dtype.size), shape).astype(dtype.bits)
    sign = 1 << (8 * dtype.size - 1)
    bits = np.where((bits & (sign - 1)) >= TOP[dtype], 0, bits).astype(dtype.bits)
    if seed % 2 and dtype is not DType.F16:
        bits &= np.dtype(dtype.bits).type((1 << (8 * dtype.size)) - 1 - (sign >> 1))
    check(Page(PageSpec(*shape, dtype), bits))


@every_dtype
def test_heads_do_not_touch_each_other(dtype, monkeypatch):
    """A head's means are the same whatever stands beside it, and whatever tiles there are."""
    original = page(wide(dtype, (5, 40, 8)), dtype)
    together = taken_off(original)
    for size in (1, 40 * 8, 40 * 8 * 2):
        monkeypatch.setitem(tiles.tiles.__kwdefaults__, "size", size)
        for whole, again in zip(together, taken_off(original), strict=True):
            assert np.array_equal(whole, again)
    alone = page(numbers(original.bits[3:4], dtype), dtype)
    assert np.array_equal(taken_off(alone)[0], together[0][3:4])


@every_dtype
@pytest.mark.parametrize("whole", [False, True])
def test_blocks_are_the_page(dtype, whole, monkeypatch):
    """Values times unit are the elements, bits are the page's, and it is not written to."""
    original = page(wide(dtype, (3, 20, 8)), dtype)
    original.bits.flags.writeable = False
    seen = np.zeros(original.spec.shape, int)
    monkeypatch.setitem(tiles.tiles.__kwdefaults__, "size", 50)
    for block in blocks(original, Scratch(), whole=whole):
        seen[block.tile] += 1
        assert block.dtype is dtype
        assert np.array_equal(block.bits, original.bits[block.tile])
        values = block.values * block.unit
        assert np.array_equal(values, numbers(original.bits, dtype)[block.tile])
        block.values.fill(0)
    assert (seen == 1).all()


@pytest.mark.parametrize("chosen", ["all", "some", "none", "every"])
@pytest.mark.parametrize("heads", [1, 3])
def test_means_are_added_to_the_tokens_that_lack_them(chosen, heads):
    """Tile by tile, and to no other token, whose bits stay: minus zero and infinity too."""
    rng = np.random.default_rng(heads)
    values = rng.standard_normal((heads, 20, 4)).astype(np.float32)
    values[:, ::7, 0], values[:, ::7, 1] = -0.0, np.inf
    held = rng.standard_normal((heads, 1, 4)).astype(np.float32)
    choice = {"some": rng.random((heads, 20, 1)) < 0.5, "none": np.zeros((heads, 20, 1), bool)}
    tokens = choice.get(chosen, np.ones((heads, 20, 1), bool))
    means = Means(held, None if chosen == "every" else tokens.astype(np.uint8))
    expected = np.where(tokens, values + held, values)
    for tile in tiles.tiles(values.shape, size=4 * 7):
        means.add(values[tile], tile)
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))

"""kivi: planes and restored bits against a slow and plain statement, and what it promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kvq_cli.codecs.kivi import Kivi
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from support import grids
from support.grids import check, copies

CHANNELS = (1, 3, 8, 33, 64, 80, 128, 256)
TOKENS = (1, 5, 31, 32, 33, 100)
INSTANCES = [
    Kivi(bits=bits, group=group, axis=axis, scale=scale)
    for bits, group, axis, scale in itertools.product(
        (2, 3, 4, 8), (32, 64, 128), ("token", "channel"), ("f16", "f32")
    )
]
every_instance = pytest.mark.parametrize("codec", INSTANCES, ids=repr)
every_axis = pytest.mark.parametrize("axis", ["token", "channel"])
every_width = pytest.mark.parametrize("bits", [2, 3, 4, 8])


def dtype_at(at):
    return list(DType)[at % 3]


@every_instance
def test_every_number_of_tokens(codec):
    """Planes are the stated ones for pages that fill groups, and for those that do not."""
    for at, tokens in enumerate(TOKENS):
        shape = (1 + at % 2, tokens, CHANNELS[(at + INSTANCES.index(codec)) % 8])
        check(codec, grids.cache(shape, dtype_at(at + INSTANCES.index(codec) // 6), at))


@every_instance
def test_every_number_of_channels(codec):
    """Likewise for every number of channels."""
    for at, channels in enumerate(CHANNELS):
        shape = (1 + at % 2, TOKENS[(at + INSTANCES.index(codec)) % 6], channels)
        check(codec, grids.cache(shape, dtype_at(at + INSTANCES.index(codec) // 8), at))


@every_instance
@pytest.mark.parametrize("dtype", list(DType))
def test_every_magnitude(codec, dtype):
    """From subnormal numbers to the largest, codes stay on their grid and errors in bounds."""
    rng = np.random.default_rng(3)
    top = 16 if codec.scale == "f16" or dtype is DType.F16 else 128
    exponents = np.linspace(grids.SMALLEST[dtype] - 1, top, 70)
    reach = np.exp2(exponents)[:, None] if codec.axis == "token" else np.exp2(exponents)
    shape = (70, 9) if codec.axis == "token" else (9, 70)
    offset = rng.integers(-1, 2, reach.shape) * reach / 2
    values = rng.uniform(-0.5, 0.5, shape) * reach * rng.choice([1, 2.0**-7], shape) + offset
    limit = grids.LARGEST[dtype]
    check(codec, grids.page(np.clip(values, -limit, limit), dtype))


@every_width
@every_axis
def test_a_group_of_one_number_comes_back(bits, axis):
    """Every half alone in its group, and in groups of 32, is restored exactly."""
    words = np.arange(0x7C00, dtype=np.uint16)
    words = np.concatenate([words[1:], words | 0x8000, words[:1]])
    alone = words.reshape(1, 1, -1) if axis == "channel" else words.reshape(1, -1, 1)
    codec = Kivi(bits=bits, axis=axis)
    for bits_of in (alone, np.repeat(alone, 32, axis=1 if axis == "channel" else 2)):
        original = Page(PageSpec(*bits_of.shape, DType.F16), np.ascontiguousarray(bits_of))
        planes = codec.encode(original, Scratch())
        restored = grids.decoded(codec, planes, original.spec)
        # Minus zero loses its sign.
        assert np.array_equal(restored, np.where(bits_of == 0x8000, 0, bits_of))


def test_a_group_of_one_bfloat16_comes_back():
    """Every finite BF16 number alone in its group, under an f32 scale."""
    words = np.arange(0x7F80, dtype=np.uint16)
    original = Page(PageSpec(1, 1, words.size, DType.BF16), words.reshape(1, 1, -1))
    codec = Kivi(bits=2, scale="f32")
    planes = codec.encode(original, Scratch())
    assert np.array_equal(grids.decoded(codec, planes, original.spec), original.bits)


@every_width
@pytest.mark.parametrize("extreme", [6000.0, -65504.0])
def test_an_extreme_token_harms_its_group_alone(bits, extreme):
    """Per channel, only the 32 tokens that share its scale are touched; per token, only itself."""
    usual = grids.cache((2, 100, 33), DType.F16, seed=8)
    spoiled = Page(usual.spec, usual.bits.copy())
    spoiled.bits[:, 40] = np.float16(extreme).view(np.uint16)
    for axis, touched in (("channel", slice(32, 64)), ("token", slice(40, 41))):
        codec = Kivi(bits=bits, axis=axis)
        before, after = copies(codec, usual), copies(codec, spoiled)
        kept = np.ones(100, bool)
        kept[touched] = False
        assert np.array_equal(before["codes"][:, kept], after["codes"][:, kept])
        restored = [grids.decoded(codec, planes, usual.spec) for planes in (before, after)]
        assert np.array_equal(restored[0][:, kept], restored[1][:, kept])
        groups = [1] if axis == "channel" else [40]
        kept_groups = np.setdiff1d(np.arange(before["scales"].shape[1]), groups)
        for name in ("scales", "zeros"):
            assert np.array_equal(before[name][:, kept_groups], after[name][:, kept_groups])


@every_axis
@every_width
@pytest.mark.parametrize("dtype", list(DType))
def test_zero_groups_stay_zero(axis, bits, dtype):
    """Groups of zeros have scale 0, come back as plus zero, and change nothing around them."""
    usual = grids.cache((1, 96, 96), dtype, seed=2)
    empty = Page(usual.spec, usual.bits.copy())
    empty.bits[:, 32:64, 32:64] = 0
    empty.bits[:, 40, 40] = 1 << (8 * dtype.size - 1)
    codec = Kivi(bits=bits, axis=axis)
    before, after = copies(codec, usual), copies(codec, empty)
    zeros = (slice(None), slice(32, 64), 1) if axis == "token" else (slice(None), 1, slice(32, 64))
    assert not after["scales"][zeros].any()
    assert not after["zeros"][zeros].any()
    restored = [grids.decoded(codec, planes, usual.spec) for planes in (before, after)]
    assert not restored[1][:, 32:64, 32:64].any()
    restored[0][:, 32:64, 32:64] = 0
    assert np.array_equal(*restored)


@every_width
def test_long_rows_of_large_numbers(bits):
    """128 elements of 6000, whose norm no half holds, come back exactly."""
    for axis in ("token", "channel"):
        check(
            Kivi(bits=bits, axis=axis, group=128), grids.page(np.full((128, 128), 6000), DType.F16)
        )
        _, found = check(Kivi(bits=bits, axis=axis), grids.page([[6000] * 128], DType.F16))
        assert (found == 6000).all()


@every_axis
@every_width
def test_f16_pages_always_have_a_scale(axis, bits):
    """From the least half to the greatest is a range that an f16 scale can span."""
    values = np.full((4, 4), 65504.0)
    values[::2], values[:, ::2] = -65504, -65504
    _, found = check(Kivi(bits=bits, axis=axis), grids.page(values, DType.F16))
    assert np.array_equal(found[0], values)

"""kivi: planes and restored bits against a slow and plain statement, and what it promises."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.codecs import NonFinite
from kvq_cli.codecs.kivi import Kivi
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from support import grids
from support.grids import Grid

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


def grid_of(codec):
    return Grid(codec.axis, codec.group, codec.bits, codec.scale)


def check(codec, original):
    """Planes, restored bits and errors are as the spec says."""
    grid, dtype = grid_of(codec), original.spec.dtype
    planes = {name: plane.copy() for name, plane in codec.encode(original, Scratch()).items()}
    stated = grids.encode(original, grid)
    assert np.array_equal(planes["scales"].astype(np.float64), stated["scales"])
    assert np.array_equal(planes["zeros"], stated["zeros"])
    assert np.array_equal(planes["codes"], grids.packed(stated["codes"], codec.bits))
    restored = grids.decoded(codec, planes, original.spec)
    assert np.array_equal(restored, grids.restore(stated, grid, dtype, dtype))
    exact, found = grids.numbers(original.bits, dtype), grids.numbers(restored, dtype)
    assert (np.abs(found - exact) <= grids.bound(stated, grid, exact, found, dtype)).all()
    return planes, found


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


@every_axis
@every_width
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_group_is_within_half_a_step(axis, bits, data):
    """In exact rational arithmetic, whatever the 16 bits are."""
    group = data.draw(st.lists(st.integers(0, 0x7BFF), min_size=1, max_size=8))
    signs = data.draw(st.lists(st.booleans(), min_size=len(group), max_size=len(group)))
    words = [word | sign << 15 for word, sign in zip(group, signs, strict=True)]
    shape = (1, 1, len(words)) if axis == "token" else (1, len(words), 1)
    original = Page(PageSpec(*shape, DType.F16), np.array(words, np.uint16).reshape(shape))
    codec = Kivi(bits=bits, axis=axis, scale=data.draw(st.sampled_from(["f16", "f32"])))
    planes, found = check(codec, original)
    step = Fraction(float(planes["scales"][0, 0, 0]))
    exact = grids.numbers(original.bits, DType.F16).reshape(-1).tolist()
    for number, restored in zip(exact, found.reshape(-1).tolist(), strict=True):
        unit = Fraction(2) ** max(math.frexp(restored)[1] - 11, -24)
        error = abs(Fraction(number) - Fraction(restored))
        assert error <= Fraction("0.501") * step + unit / 2


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


def copies(codec, original):
    planes = codec.encode(original, Scratch())
    return {name: plane.copy() for name, plane in planes.items()}


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


@every_axis
@every_width
def test_half_scales_have_an_end(axis, bits):
    """A range that needs a scale of 65520 is refused, and not as non-finite."""
    top = 65520.0 * (2**bits - 1) / 2
    below = float(np.nextafter(np.float32(top), np.float32(0)))
    check(Kivi(bits=bits, axis=axis), grids.page([[below, -below], [-below, below]], DType.F32))
    original = grids.page([[top, -top], [-top, top]], DType.F32)
    with pytest.raises(CodecError) as refusal:
        Kivi(bits=bits, axis=axis).encode(original, Scratch())
    assert refusal.value.error_id == "E501"
    assert not isinstance(refusal.value, NonFinite)


@every_axis
@pytest.mark.parametrize("word", [0x7C00, 0xFC00, 0x7C01, 0x7E00, 0xFFFF])
def test_non_finite_is_named(axis, word):
    """The refusal carries the first offender and the heads that hold any."""
    bits = np.zeros((3, 40, 5), np.uint16)
    bits[1, 35, 3] = word
    bits[1, 36, 0] = bits[2, 0, 0] = 0xFC00
    with pytest.raises(NonFinite) as refusal:
        Kivi(axis=axis).encode(Page(PageSpec(3, 40, 5, DType.F16), bits), Scratch())
    assert refusal.value.error_id == "E501"
    assert refusal.value.first == (1, 35, 3)
    assert refusal.value.heads.tolist() == [False, True, True]


@pytest.mark.parametrize("target", list(DType))
@pytest.mark.parametrize("source", list(DType))
@every_axis
def test_other_targets_are_rounded_once(axis, source, target):
    """Decoding into any dtype is one float32 product, rounded once to that dtype."""
    original = grids.cache((2, 40, 33), source)
    codec = Kivi(axis=axis, bits=3)
    planes = codec.encode(original, Scratch())
    found = grids.decoded(codec, planes, original.spec, target)
    stated = grids.encode(original, grid_of(codec))
    assert np.array_equal(found, grids.restore(stated, grid_of(codec), source, target))


@pytest.mark.parametrize(
    ("plane", "value"),
    [
        ("zeros", 28688),
        ("zeros", -28688),
        ("zeros", -32768),
        ("scales", np.inf),
        ("scales", np.nan),
        ("scales", -1.0),
        ("scales", -0.0),
        ("codes", 0b01000011),
    ],
)
@every_axis
def test_impossible_planes_are_refused(axis, plane, value):
    """Scales, zeros and padding that no encoder writes are damage."""
    codec = Kivi(bits=2, axis=axis)
    original = grids.page([[1, 2, 3]], DType.F16)
    planes = copies(codec, original)
    planes[plane][0, 0, 0] = value
    for refuse in (
        lambda: codec.check(planes, original.spec),
        lambda: grids.decoded(codec, planes, original.spec),
    ):
        with pytest.raises(CodecError) as refusal:
            refuse()
        assert refusal.value.error_id == "E502"


def test_keys_want_channels():
    """On channels with large offsets, groups of tokens err far less than groups of channels."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((256, 128)) + np.exp2(rng.uniform(-3, 6, 128))
    original = grids.page(values, DType.F16)
    errors = []
    for axis in ("token", "channel"):
        codec = Kivi(axis=axis)
        found = grids.decoded(codec, codec.encode(original, Scratch()), original.spec)
        errors.append(np.square(grids.numbers(found, DType.F16) - values).sum())
    assert errors[1] * 4 < errors[0]

"""int4: planes and restored bits against a slow and plain statement, and what it promises."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kvq_cli.codecs.int4 import Int4
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from support import grids
from support.grids import check, copies

CHANNELS = (1, 3, 8, 33, 64, 80, 128, 256)
TOKENS = (1, 5, 31, 32, 33, 100)
INSTANCES = [
    Int4(group=group, zero_point=zero_point, center=center, scale=scale)
    for group, zero_point, center, scale in itertools.product(
        (32, 64, 128), (False, True), (False, True), ("f16", "f32")
    )
]
every_instance = pytest.mark.parametrize("codec", INSTANCES, ids=repr)
every_grid = pytest.mark.parametrize("zero_point", [False, True])
every_dtype = pytest.mark.parametrize("dtype", list(DType))


@every_instance
@every_dtype
def test_every_number_of_tokens_and_channels(codec, dtype):
    """Planes are the stated ones for pages that fill groups, and for those that do not."""
    shift = INSTANCES.index(codec)
    for at, (tokens, channels) in enumerate(
        [(tokens, CHANNELS[(at + shift) % 8]) for at, tokens in enumerate(TOKENS)]
        + [(TOKENS[(at + shift) % 6], channels) for at, channels in enumerate(CHANNELS)]
    ):
        check(codec, grids.cache((1 + at % 2, tokens, channels), dtype, at))


@every_instance
@every_dtype
def test_every_magnitude(codec, dtype):
    """From subnormal numbers to the largest, codes stay on their grid and errors in bounds."""
    rng = np.random.default_rng(3)
    top = 16 if codec.scale == "f16" or dtype is DType.F16 else 128
    reach = np.exp2(np.linspace(grids.SMALLEST[dtype] - 1, top, 120))[:, None]
    offset = rng.integers(-1, 2, reach.shape) * reach / 2
    values = rng.uniform(-0.5, 0.5, (120, 9)) * reach * rng.choice([1, 2.0**-7], (120, 9)) + offset
    limit = grids.LARGEST[dtype]
    values = np.clip(values, -limit, limit)
    check(codec, grids.page(values, dtype))
    # Each token a head of its own, so that there are means of every magnitude.
    check(codec, grids.page(values.reshape(40, 3, 9), dtype))


@pytest.mark.parametrize("sign", [1, -1])
def test_all_sixteen_codes_are_used(sign):
    """Without a zero point the extreme has code 0, and the scale its opposite sign."""
    values = sign * np.arange(-8.0, 8.0)
    planes, found = check(Int4(), grids.page([values], DType.F16))
    assert planes["scales"][0, 0, 0] == sign
    assert planes["codes"].tobytes().hex() == "1032547698badcfe"
    assert np.array_equal(found[0, 0], values)
    assert not np.signbit(found[0, 0, 8])


def test_of_two_extremes_the_negative_one_is_exact():
    """Its opposite gets the last code, one step short."""
    _, found = check(Int4(), grids.page([[8, -8, 7.9, 0.25]], DType.F16))
    assert found.tolist() == [[[7, -8, 7, 0]]]


def test_a_lone_number_comes_back():
    """Every half that is a group by itself, as long as its eighth is a normal half."""
    words = np.arange(0x7C00, dtype=np.uint16)
    words = np.concatenate([words, words | 0x8000]).reshape(1, -1, 1)
    original = Page(PageSpec(*words.shape, DType.F16), words)
    codec = Int4(zero_point=True)
    found = grids.decoded(codec, codec.encode(original, Scratch()), original.spec)
    assert np.array_equal(found, np.where(words == 0x8000, 0, words))
    found = grids.decoded(Int4(), Int4().encode(original, Scratch()), original.spec)
    normal = (words & 0x7FFF) >= 0x1000
    assert np.array_equal(found[normal], words[normal])


@every_instance
def test_an_extreme_token_harms_no_other(codec):
    """Without means the others' planes are the same; with them, no token reaches further."""
    usual = grids.page(np.random.default_rng(4).standard_normal((100, 80)), DType.F16)
    spoiled = Page(usual.spec, usual.bits.copy())
    spoiled.bits[:, 40] = np.float16(-6000).view(np.uint16)
    others = np.arange(100) != 40
    planes, found = check(codec, spoiled)
    if codec.center:
        # It pulls each mean by 60, so the others are better off without.
        assert not planes["centred"][:, others].any()
        assert planes["centred"][:, 40].all()
        spoiled.bits[:, 40] = 0
        plain = Int4(group=codec.group, zero_point=codec.zero_point, scale=codec.scale)
        _, expected = check(plain, spoiled)
        assert np.array_equal(found[:, others], expected[:, others])
        return
    before = copies(codec, usual)
    for name in before:
        assert np.array_equal(before[name][:, others], planes[name][:, others])


@every_dtype
@every_grid
def test_zero_groups_stay_zero(zero_point, dtype):
    """Groups of zeros have scale 0, come back as plus zero, and change nothing around them."""
    usual = grids.cache((1, 20, 96), dtype, seed=2)
    empty = Page(usual.spec, usual.bits.copy())
    empty.bits[:, 5:9, 32:64] = 0
    empty.bits[:, 6, 40] = 1 << (8 * dtype.size - 1)
    codec = Int4(group=32, zero_point=zero_point)
    before, after = copies(codec, usual), copies(codec, empty)
    assert not after["scales"][:, 5:9, 1].any()
    assert (after["codes"][:, 5:9, 16:32] == (0 if zero_point else 0x88)).all()
    restored = [grids.decoded(codec, planes, usual.spec) for planes in (before, after)]
    assert not restored[1][:, 5:9, 32:64].any()
    restored[0][:, 5:9, 32:64] = 0
    assert np.array_equal(*restored)


@every_grid
@pytest.mark.parametrize("code", range(16))
def test_under_scale_zero_everything_is_zero(zero_point, code):
    """Signs follow the spec: none without a zero point, that of the number with one."""
    codec, spec = Int4(zero_point=zero_point), PageSpec(1, 2, 2, DType.F16)
    for other in (1, -1) if not zero_point else (1,):
        scales = np.array([0, other], np.float16).reshape(1, 2, 1)
        planes = {"scales": scales, "codes": np.full((1, 2, 1), 17 * code, np.uint8)}
        if zero_point:
            planes["zeros"] = np.full((1, 2, 1), -100, np.int16)
        found = grids.decoded(codec, planes, spec)
        minus = 0x8000 if zero_point and 16 * code < 100 else 0
        assert (found[0, 0] == minus).all()


@every_instance
def test_long_rows_of_large_numbers(codec):
    """128 elements of 6000, whose norm no half holds, come back exactly."""
    _, found = check(codec, grids.page([[6000] * 128] * 3, DType.F16))
    assert (found == 6000).all()


@every_grid
@pytest.mark.parametrize("center", [False, True])
def test_f16_pages_always_have_a_scale(zero_point, center):
    """From the least half to the greatest is a range that an f16 scale can span."""
    values = np.full((4, 4), 65504.0)
    values[::2], values[:, ::2] = -65504, -65504
    codec = Int4(zero_point=zero_point, center=center)
    _, found = check(codec, grids.page(values, DType.F16))
    assert np.isfinite(found).all()


def test_narrower_targets_refuse_what_they_cannot_hold():
    """F32 pages decode to F16 unless a number would become infinite."""
    planes = copies(Int4(scale="f32"), grids.page([[-65520.0, 3]], DType.F32))
    with pytest.raises(CodecError) as refusal:
        grids.decoded(Int4(scale="f32"), planes, PageSpec(1, 1, 2, DType.F32), DType.F16)
    assert refusal.value.error_id == "E501"


@pytest.mark.parametrize("scale", ["f16", "f32"])
def test_only_grids_with_zeros_refuse_signed_scales(scale):
    """Without zeros a negative scale is as good as a positive one."""
    original = grids.page([[1, 2, -3]], DType.F16)
    plain, zeroed = Int4(scale=scale), Int4(scale=scale, zero_point=True)
    plain.check(
        {**copies(plain, original), "scales": -copies(plain, original)["scales"]}, original.spec
    )
    planes = copies(zeroed, original)
    planes["scales"] = -planes["scales"]
    with pytest.raises(CodecError) as refusal:
        zeroed.check(planes, original.spec)
    assert refusal.value.error_id == "E502"

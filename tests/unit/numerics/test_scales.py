"""scales: what is stored, and what divides by it, against exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import CodecError
from kvq_cli.numerics import scales
from kvq_cli.numerics.bits import LARGEST
from kvq_cli.numerics.groups import Groups
from kvq_cli.page import DType

ENDS = [1.5, 3.5, 7.5, 127.5, 8.0, 127.0, 448.0, 57344.0]
NORMAL = {"f32": 2.0**-126, "f16": 2.0**-14}
LEAST = {"f32": Fraction(1, 1 << 149), "f16": Fraction(1, 1 << 24)}
every_end = pytest.mark.parametrize("largest", ENDS)
every_kind = pytest.mark.parametrize("kind", ["f32", "f16"])


def groups_of(values):
    return np.asarray(values, np.float32).reshape(1, -1, 1)


def subnormals_and_above(count=3000):
    """Peaks from 2**-149 to about 2**-90."""
    rng = np.random.default_rng(5)
    words = np.unique(rng.integers(1, 60 << 23, count, dtype=np.uint32))
    return np.concatenate([np.arange(1, 300, dtype=np.uint32), words]).view(np.float32)


@every_end
@every_kind
def test_normal_scales_are_the_rounded_quotient(largest, kind):
    """The quotient is rounded to float32, and for f16 once more."""
    rng = np.random.default_rng(3)
    exponents = rng.uniform(-14, 15, 2000) if kind == "f16" else rng.uniform(-125, 120, 2000)
    peaks = groups_of(np.minimum(np.exp2(exponents) * largest, 3e38))
    expected = (peaks.astype(np.float64) / largest).astype(np.float32)
    expected = expected.astype(np.float16) if kind == "f16" else expected
    chosen = (expected > NORMAL[kind]) & np.isfinite(expected) & (peaks < 65519 * largest)
    found = scales.stored(peaks[:, chosen[0, :, 0]], largest, kind, "x")
    assert found.dtype == expected.dtype
    assert np.array_equal(found.reshape(-1), expected[chosen])


@every_end
@pytest.mark.parametrize("parts", [1, 16])
def test_small_scales_are_rounded_up(largest, parts):
    """Below the smallest normal number times `parts`: to the next multiple of its last place."""
    peaks = subnormals_and_above()
    found = scales.stored(groups_of(peaks), largest, "f32", "x", parts=parts).reshape(-1)
    unit, end = LEAST["f32"] * parts, Fraction(NORMAL["f32"]) * parts
    for peak, scale in zip(map(float, peaks), map(float, found), strict=True):
        exact = Fraction(peak) / Fraction(largest)
        if exact < end * (1 - Fraction(1, 1 << 22)):
            assert Fraction(scale) % unit == 0
            assert exact * (1 - Fraction(1, 1 << 22)) <= scale <= exact * Fraction(1.0001) + unit
            assert scale > 0


@every_end
def test_scales_divide_into_parts_without_rounding(largest):
    """A sixteenth of a scale is a float32, down to the least scale."""
    found = scales.stored(groups_of(subnormals_and_above()), largest, "f32", "x", parts=16)
    parts = found * np.float32(1 / 16)
    assert np.array_equal(parts.astype(np.float64) * 16, found.astype(np.float64))


@every_end
def test_small_half_scales_are_rounded_up(largest):
    """Below 2**-14: to the next multiple of 2**-24, and never to 0."""
    peaks = np.concatenate([subnormals_and_above(), np.exp2(np.linspace(-50, -14, 4000)) * largest])
    peaks = peaks.astype(np.float32)
    found = scales.stored(groups_of(peaks), largest, "f16", "x").reshape(-1)
    for peak, scale in zip(map(float, peaks), map(float, found), strict=True):
        exact = Fraction(peak) / Fraction(largest)
        if exact < Fraction(NORMAL["f16"]) * (1 - Fraction(1, 1 << 22)):
            assert Fraction(scale) % LEAST["f16"] == 0
            assert exact * (1 - Fraction(1, 1 << 22)) <= scale
            assert LEAST["f16"] <= scale <= exact * Fraction(1.0001) + LEAST["f16"]


@every_end
@every_kind
def test_only_zero_has_scale_zero(largest, kind):
    """The least subnormal peak has a scale, and zero among others has none."""
    peaks = groups_of([0, 2.0**-149, 1, 0, 2.0**-126])
    found = scales.stored(peaks, largest, kind, "x").reshape(-1)
    assert (found != 0).tolist() == [False, True, True, False, True]
    assert not np.signbit(found).any()


@every_end
def test_half_scales_have_an_end(largest):
    """From 65520 on f16 has no scale; just below it is the largest finite one."""
    end = np.float32(65520 * largest)
    found = scales.stored(groups_of([np.nextafter(end, np.float32(0))]), largest, "f16", "x")
    assert found[0, 0, 0] == 65504
    with pytest.raises(CodecError) as refusal:
        scales.stored(groups_of([1, end]), largest, "f16", "x")
    assert refusal.value.error_id == "E501"


@every_end
@every_kind
@settings(deadline=None, max_examples=100)
@given(words=st.lists(st.integers(0, 0x7F7FFFFF), min_size=1, max_size=20))
def test_no_code_passes_the_largest(largest, kind, words):
    """The peak itself, divided, is at most one part in 2048 beyond, whatever its size."""
    peaks = groups_of(np.array(words, np.uint32).view(np.float32))
    peaks = peaks if kind == "f32" else np.minimum(peaks, np.float32(65000 * largest))
    stored = scales.stored(peaks, largest, kind, "x")
    divisor = scales.Divisor.by(scales.wide(stored))
    values = np.concatenate([peaks, -peaks], axis=2)
    divisor.elements(values, Groups("token"), np.float32(1))
    limit = largest * (1 + (2.0**-21 if kind == "f32" else 2.0**-11 + 2.0**-21))
    assert (np.abs(values) <= limit).all()
    normal = scales.wide(stored) >= NORMAL[kind]
    assert (np.abs(values[normal[..., 0]]) >= largest * (1 - 2.0**-10)).all()


@pytest.mark.parametrize("signed", [False, True])
def test_dividing_is_one_reciprocal_and_one_product(signed):
    """Elements times 1 / scale, both in float32, each group with its own scale."""
    rng = np.random.default_rng(9)
    factors = np.exp2(rng.uniform(-120, 120, (2, 9, 3))).astype(np.float32)
    factors *= rng.choice([-1, 1], factors.shape) if signed else 1
    groups = Groups("token", 4)
    values = rng.standard_normal((2, 9, 10)).astype(np.float32)
    wide = np.repeat(factors, 4, axis=2)[..., :10]
    values *= np.abs(wide)
    expected = values * (np.float32(1) / wide)
    divisor = scales.Divisor.by(factors)
    assert np.array_equal(divisor.groups(values[..., ::4]), expected[..., ::4])
    divisor.elements(values, groups, np.float32(1))
    assert np.array_equal(values, expected)


def test_groups_with_subnormal_scales_are_lifted():
    """Their reciprocal would be infinite, so their elements come up by 2**64 first."""
    factors = np.array([2.0**-149, 2.0**-127, 2.0**-126, 1, 0, -(2.0**-149)], np.float32)
    values = np.array([3 * 2.0**-149, 2.0**-126, 2.0**-126, 5, 0, 2.0**-148], np.float32)
    divisor = scales.Divisor.by(groups_of(factors))
    assert divisor.groups(groups_of(values)).reshape(-1).tolist() == [3, 2, 1, 5, 0, -2]
    elements = groups_of(values)
    divisor.elements(elements, Groups("token"), np.float32(1))
    assert elements.reshape(-1).tolist() == [3, 2, 1, 5, 0, -2]


def test_scale_zero_makes_everything_zero():
    """Even what is not: planes are made by encoders, pages by anyone."""
    divisor = scales.Divisor.by(groups_of([0, 0]))
    values = groups_of([7, -3e38])
    divisor.elements(values, Groups("token"), np.float32(1))
    assert not values.any()


@pytest.mark.parametrize("least", [1e-3, 2.0**-30])
def test_a_unit_changes_no_result(least):
    """Elements that are short of 2**112 get it with the factor, or first where that overflows."""
    rng = np.random.default_rng(11)
    factors = np.exp2(rng.uniform(np.log2(least), 3, (1, 50, 1))).astype(np.float32)
    values = (rng.uniform(-127, 127, (1, 50, 8)) * factors).astype(np.float16).astype(np.float32)
    expected = values * (np.float32(1) / factors)
    spread = values * np.float32(2.0**-112)
    scales.Divisor.by(factors).elements(spread, Groups("token"), np.float32(2.0**112))
    assert np.array_equal(spread, expected)


@every_end
@every_kind
@pytest.mark.parametrize("dtype", list(DType))
def test_the_largest_bits_bound_every_scale(largest, kind, dtype):
    """No peak up to the largest number has a scale with larger bits; the largest one has them."""
    top = LARGEST[dtype]
    most = scales.largest_bits(top, largest, kind)
    if kind == "f16" and top / largest >= 65520:
        assert most == 0x7BFF
        return
    rng = np.random.default_rng(13)
    peaks = groups_of(np.append(top * rng.random(500), top))
    words = scales.bits_of(scales.stored(peaks, largest, kind, "x"))
    assert words.max() == words[0, -1, 0] == most


@pytest.mark.parametrize("kind", [np.uint16, np.uint32])
def test_check_takes_the_largest_and_refuses_the_next(kind):
    """A sign, an infinity or a NaN is above every largest one."""
    scales.check(np.array([0, 5, 100], kind), 100, "x")
    for word in (101, np.iinfo(kind).max, np.iinfo(kind).max // 2 + 1):
        with pytest.raises(CodecError) as refusal:
            scales.check(np.array([0, word, 5], kind), 100, "x")
        assert refusal.value.error_id == "E502"

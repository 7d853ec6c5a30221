"""restore: a product, a sum and one rounding, whichever way they are done."""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import LARGEST, OVERFLOW
from kvq_cli.numerics.centre import Means
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.restore import Restore
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType

FLOATS = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
ROW = Groups("token")
EVERYTHING = (slice(None), slice(None))
PAIRS = list(itertools.product(DType, DType))
every_dtype = pytest.mark.parametrize("dtype", list(DType))
every_pair = pytest.mark.parametrize(("source", "target"), PAIRS)


def plainly(codes, wide, means, source, target):
    """Section "Restoring" of the spec, or None where it refuses."""
    # Products and sums of two float32 numbers round once, through float64.
    with np.errstate(over="ignore"):
        exact = (codes.astype(np.float64) * wide.astype(np.float64)).astype(np.float32)
        if means is not None:
            exact = (exact.astype(np.float64) + means.astype(np.float64)).astype(np.float32)
    if source is target:
        exact = np.clip(exact, -np.float32(LARGEST[target]), np.float32(LARGEST[target]))
    elif (np.abs(exact.astype(np.float64)) >= OVERFLOW[target]).any():
        return None
    # ml_dtypes and NumPy round to nearest, and what is left rounds to nothing infinite.
    return exact.astype(FLOATS[target]).view(target.bits)


def restored(codes, scales, means, source, target, groups=ROW, *, signed=True):
    """The bits that Restore writes, or None where it refuses; codes are integers up to 127."""
    added = None if means is None else Means(means, None)
    restore = Restore(source, target, groups, 1, 127, added, Scratch())
    out = np.full(codes.shape, 0xA5, target.bits)
    signs = codes if signed else None
    refusal = None
    try:
        restore(codes.astype(np.float32), scales, out, EVERYTHING, signs=signs)
    except CodecError as error:
        refusal = error.error_id
    assert refusal in (None, "E501")
    return out if refusal is None else None


def codes_of(shape, seed=0):
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


def check(codes, scales, means, source, target, groups=ROW):
    size = min(groups.size, max(codes.shape))
    wide = np.repeat(scales, size, axis=2 if groups.axis == "token" else 1)
    wide = wide[:, : codes.shape[1], : codes.shape[2]]
    expected = plainly(codes, wide, means, source, target)
    found = restored(codes, scales, means, source, target, groups)
    assert (found is None) == (expected is None)
    if found is not None:
        assert np.array_equal(found, expected)


@every_pair
@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_scales_and_means(source, target, data):
    """From the least subnormal to the largest number, with zeros: the stated arithmetic."""
    seed = data.draw(st.integers(0, 1 << 16))
    low, high = data.draw(
        st.sampled_from([(-2, 2), (-20, -8), (-30, 9), (-149, -120), (-149, 121)])
    )
    rng = np.random.default_rng(seed)
    groups = data.draw(st.sampled_from([ROW, Groups("channel"), Groups("token", 4)]))
    codes = codes_of((2, 5, 7), seed)
    scales = np.exp2(rng.uniform(low, high, groups.shape(codes.shape))).astype(np.float32)
    scales[rng.random(scales.shape) < 0.1] = 0
    means = None
    if data.draw(st.booleans()):
        means = rng.standard_normal((2, 1, 7)) * np.exp2(rng.uniform(low, high))
        means = means.astype(np.float32)
    check(codes, scales, means, source, target, groups)


@pytest.mark.parametrize("source", list(DType))
def test_the_short_way_to_f16_differs_in_no_bit(source):
    """A row of scale 2**-20 beside others sends them the long way."""
    scales = np.exp2(np.random.default_rng(2).uniform(-14, 8, (1, 400, 1))).astype(np.float32)
    scales[0, 0] = 2.0**-14
    codes = np.tile(np.arange(-127, 128, dtype=np.int8), (1, 400, 1))
    short = restored(codes, scales, None, source, DType.F16)
    more = np.concatenate([scales, np.full((1, 1, 1), 2.0**-20, np.float32)], axis=1)
    long = restored(codes_with_row(codes), more, None, source, DType.F16)
    assert np.array_equal(short, long[:, :400])
    check(codes, scales, None, source, DType.F16)


def codes_with_row(codes):
    return np.concatenate([codes, codes[:, :1]], axis=1)


@every_pair
def test_ties_round_to_even_once(source, target):
    """Codes under a scale that makes products ties of the target, or nearly ties."""
    digits = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}[target]
    base = np.float32(1 + 2.0**-digits)
    near = [np.nextafter(base, np.float32(2)), base, np.nextafter(base, np.float32(0))]
    scales = np.array(near, np.float32).reshape(1, -1, 1)
    scales = np.concatenate([scales * np.float32(2.0**power) for power in (0, -10, -24)], axis=1)
    codes = np.tile(np.arange(-64, 64, dtype=np.int8), (1, scales.shape[1], 1))
    check(codes, scales, None, source, target)
    check(codes, scales, np.full((1, 1, 128), 0.5, np.float32), source, target)


@every_dtype
def test_the_own_dtype_saturates(dtype):
    """A product that passes the largest number becomes it."""
    top = np.float32(LARGEST[dtype])
    codes = np.array([[[127, -127, 1, 0]]], np.int8)
    out = restored(codes, np.array([[[top / 126]]], np.float32), None, dtype, dtype)
    found = out.view(FLOATS[dtype]).astype(np.float64)[0, 0]
    assert found[:2].tolist() == [LARGEST[dtype], -LARGEST[dtype]]
    assert np.isfinite(found).all()


@every_pair
@pytest.mark.parametrize("part", [120, 200])
def test_a_sum_saturates_or_is_refused(source, target, part):
    """Where a product and a mean that the dtype holds pass its largest number together."""
    top = np.float32(min(LARGEST[source], LARGEST[target]))
    codes = np.array([[[127, -127, 1, 0]]], np.int8)
    means = np.array([[[top * 0.75, -top * 0.75, top, -top]]], np.float32)
    out = restored(codes, np.array([[[top / part]]], np.float32), means, source, target)
    if source is target:
        found = out.view(FLOATS[target]).astype(np.float64)[0, 0]
        assert found.tolist() == [float(each) for each in (top, -top, top, -top)]
    else:
        check(codes, np.array([[[top / part]]], np.float32), means, source, target)


@every_pair
def test_another_dtype_refuses_what_would_be_infinite(source, target):
    """Up to half a unit beyond the largest number is its rounding; from there on E501."""
    one = np.array([[[1]]], np.int8)
    end = OVERFLOW[target]
    if end > LARGEST[DType.F32]:
        end, least = np.float32(2.0**121), np.array([[[127]]], np.int8)
        assert (restored(least, np.full((1, 1, 1), end * 2), None, source, target) is None) == (
            source is not target
        )
        return
    below = np.nextafter(np.float32(end), np.float32(0)).reshape(1, 1, 1)
    assert restored(one, below, None, source, target).view(FLOATS[target]) == LARGEST[target]
    above = restored(one, np.full((1, 1, 1), end, np.float32), None, source, target)
    assert (above is None) == (source is not target)


@every_dtype
@pytest.mark.parametrize("scale", [2.0**-3, 2.0**-20, 0.0, 1e-40])
def test_codes_give_zeros_their_sign(dtype, scale):
    """Code 0 is plus zero; what rounds to zero, or has scale 0, keeps the sign of its code."""
    codes = np.array([[[0, 1, -1, 2, -2]]], np.int8)
    scales = np.full((1, 1, 1), scale, np.float32)
    out = restored(codes, scales, None, DType.F32, dtype)
    found = np.signbit(out.view(FLOATS[dtype]).astype(np.float32))[0, 0]
    assert found.tolist() == [False, False, True, False, True]


@every_dtype
@pytest.mark.parametrize("size", [2.0**-3, 2.0**-16, 1e-40])
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_signed_scales_make_no_minus_zero(dtype, size, sign):
    """Without signs of codes, zero times anything is plus zero, whatever is beside it."""
    codes = np.array([[[0, 1, -1], [0, 3, -3]]], np.int8)
    for beside in (-size, size):
        scales = np.array([sign * size, beside], np.float32).reshape(1, 2, 1)
        out = restored(codes, scales, None, DType.F32, dtype, signed=False)
        zeros = out[0, :, 0] if sign else np.append(out[0, 0], out[0, 1, 0])
        assert not zeros.any()
        wide = np.signbit(out.view(FLOATS[dtype]).astype(np.float32))[0, 1]
        assert wide.tolist() == [False, beside < 0, beside > 0]


@every_dtype
def test_a_sum_of_zeros(dtype):
    """Minus zero is left only where both terms are."""
    codes = np.array([[[0, 0, -1, -1]]], np.int8)
    means = np.array([[[0.0, -0.0, 0.0, -0.0]]], np.float32)
    out = restored(codes, np.zeros((1, 1, 1), np.float32), means, dtype, dtype)
    found = np.signbit(out.view(FLOATS[dtype]).astype(np.float32))[0, 0]
    assert found.tolist() == [False, False, False, True]


def test_rests_of_groups_have_their_own_scale():
    """A token of 7 channels in groups of 4, and a channel of 7 tokens in groups of 4."""
    codes = codes_of((2, 7, 7))
    for groups in (Groups("token", 4), Groups("channel", 4)):
        scales = np.arange(1, 29, dtype=np.float32).reshape(groups.shape(codes.shape))
        for target in DType:
            check(codes, scales, None, DType.F32, target, groups)

"""bits: conversions against NumPy (F16) and ml_dtypes (BF16), over every pattern."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import (
    INFINITY,
    LARGEST,
    MAGNITUDE,
    OVERFLOW,
    SMALLEST_NORMAL,
    UNIT,
    convert,
    gather,
    narrow,
    patch,
    spread,
    widen,
)
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType

ALL_WORDS = np.arange(1 << 16, dtype=np.uint16)
ORACLE = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
HALVES = [DType.F16, DType.BF16]


def finite_words(dtype):
    return ALL_WORDS[(ALL_WORDS & MAGNITUDE[dtype]) < INFINITY[dtype]]


def bits_of(values):
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def corners(dtype):
    """Every finite number, every tie between two of them, and both neighbours of each."""
    words = finite_words(dtype)
    exact = words.view(ORACLE[dtype]).astype(np.float64)
    ordered = np.unique(exact)
    ties = (ordered[1:] + ordered[:-1]) / 2
    centres = np.concatenate([ordered, ties]).astype(np.float32)
    around = [centres, np.nextafter(centres, np.float32(np.inf))]
    around.append(np.nextafter(centres, np.float32(-np.inf)))
    values = np.concatenate(around)
    return values[np.abs(values.astype(np.float64)) < OVERFLOW[dtype]]


def scattered(dtype):
    """Random magnitudes over the whole range of a dtype, subnormals included."""
    rng = np.random.default_rng(17)
    words = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    values = words[(words & 0x7FFFFFFF) < INFINITY[DType.F32]].view(np.float32)
    return values[np.abs(values.astype(np.float64)) < OVERFLOW[dtype]].copy()


@pytest.mark.parametrize("dtype", HALVES)
def test_widen_is_exact_on_every_finite_pattern(dtype):
    """Widening gives the number that the oracle reads, sign of zero included."""
    words = finite_words(dtype)
    out = np.empty(words.shape, np.float32)
    widen(words, dtype, out)
    assert np.array_equal(bits_of(out), bits_of(words.view(ORACLE[dtype]).astype(np.float32)))


@pytest.mark.parametrize("dtype", HALVES)
def test_spread_is_widen_over_unit(dtype):
    """What spread leaves out is exactly the factor UNIT."""
    words = finite_words(dtype)
    out = np.empty(words.shape, np.float32)
    spread_out = spread(words, dtype, np.empty(words.shape, np.float32)) * UNIT[dtype]
    widen(words, dtype, out)
    assert np.array_equal(bits_of(out), bits_of(spread_out))


def test_spread_of_f32_is_a_view():
    """F32 bits are not copied, so a caller must not write to what it gets."""
    words = np.arange(4, dtype=np.uint32)
    assert np.shares_memory(spread(words, DType.F32, np.empty(4, np.float32)), words)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("samples", [corners, scattered])
def test_narrow_rounds_half_to_even(dtype, samples):
    """Narrowing equals the oracle on numbers, ties, their neighbours and random magnitudes."""
    values = samples(dtype)
    expected = bits_of(values.astype(ORACLE[dtype]))
    out = np.empty(values.shape, np.uint16)
    narrow(values.copy(), dtype, out, Scratch())
    assert np.array_equal(out, expected)


def traps():
    """Where rounding to half precision in two steps goes wrong, and what lies around it.

    Ties between subnormals, and the last number below the smallest normal one, each with all
    float32 numbers of its neighbourhood: some of them become ties once they lost a digit.
    """
    halves = np.arange(0x402, dtype=np.float64) / 2
    centres = np.concatenate([halves * 2.0**-24, [2.0**-14, 2.0**-14 * (1 - 2.0**-11)]])
    words = bits_of(centres.astype(np.float32))[:, None].astype(np.int64)
    far = np.arange(-40, 41)
    near = np.clip(words + np.concatenate([far, far * 1021]), 0, None).astype(np.uint32)
    values = near.reshape(-1).view(np.float32)
    return np.concatenate([values, -values])


@pytest.mark.parametrize("order", ["sorted", "shuffled", "sparse", "alone"])
def test_narrow_is_right_around_every_subnormal_tie(order):
    """Many small numbers or a few among ordinary ones, which go another way, round alike."""
    values = traps()
    rng = np.random.default_rng(29)
    if order == "shuffled":
        values = rng.permutation(values)
    if order == "sparse":
        ordinary = rng.uniform(1, 2, (40, values.size)).astype(np.float32)
        ordinary[7] = values
        values = ordinary.reshape(-1)
    out = np.empty(values.shape, np.uint16)
    if order == "alone":
        values = rng.choice(values, 300)
        for at in range(values.size):
            narrow(values[at : at + 1].copy(), DType.F16, out[at : at + 1], Scratch())
        out = out[: values.size]
    else:
        narrow(values.copy(), DType.F16, out, Scratch())
    assert np.array_equal(out, bits_of(values.astype(np.float16)))


@pytest.mark.parametrize("dtype", HALVES)
def test_narrow_writes_into_a_part_of_a_page(dtype):
    """What it writes to need not be contiguous."""
    values = corners(dtype)[:1200].reshape(3, 20, 20)
    whole = np.zeros((3, 50, 20), np.uint16)
    narrow(values.copy(), dtype, whole[:, 7:27], Scratch())
    assert np.array_equal(whole[:, 7:27], bits_of(values.astype(ORACLE[dtype])))
    assert not whole[:, :7].any()
    assert not whole[:, 27:].any()


@pytest.mark.parametrize("dtype", HALVES)
def test_gather_gives_the_same(dtype):
    """The short way, taken where nothing is small, differs from the long one in no bit."""
    values = corners(dtype)
    values = values[(values == 0) | (np.abs(values) >= SMALLEST_NORMAL[dtype])]
    long, direct, signed = (np.empty(values.shape, np.uint16) for _ in range(3))
    narrow(values.copy(), dtype, long, Scratch())
    gather(values * (1 / UNIT[dtype]), dtype, direct, Scratch())
    for kind in (np.int8, np.int16):
        signs = np.where(np.signbit(values), -1, 1).astype(kind)
        gather(values * (1 / UNIT[dtype]), dtype, signed, Scratch(), signs=signs)
        assert np.array_equal(long, signed)
    assert np.array_equal(long, direct)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_patch_replaces_just_what_is_small(share):
    """A few places or many: the rest of the output is not written to."""
    rng = np.random.default_rng(int(share * 100))
    values = rng.standard_normal((7, 11, 13)).astype(np.float32)
    small = rng.random(values.shape) < share
    out = np.full(values.shape, 9, np.uint16)
    patch(values, small, lambda some: (some > 0).astype(np.uint32), out)
    assert np.array_equal(out, np.where(small, values > 0, 9))


@pytest.mark.parametrize("share", [0.01, 0.5, 1.0])
def test_narrow_keeps_zeros_among_other_numbers(share):
    """Zeros of both signs, few or many, beside subnormals and ordinary numbers."""
    rng = np.random.default_rng(int(share * 100))
    values = rng.choice([1.5, -(2.0**-20), 3e-8, 2.0**-14], 4000).astype(np.float32)
    zeros = rng.choice([0.0, -0.0], values.shape).astype(np.float32)
    values = np.where(rng.random(values.shape) < share, zeros, values)
    out = np.empty(values.shape, np.uint16)
    narrow(values.copy(), DType.F16, out, Scratch())
    assert np.array_equal(out, bits_of(values.astype(np.float16)))


def test_narrow_to_f32_copies_bits():
    """F32 to F32 keeps every finite pattern."""
    values = scattered(DType.F32)
    out = np.empty(values.shape, np.uint32)
    narrow(values.copy(), DType.F32, out, Scratch())
    assert np.array_equal(out, bits_of(values))


@pytest.mark.parametrize("dtype", list(DType))
def test_limits_agree_with_the_dtype(dtype):
    """LARGEST is the last finite number, and OVERFLOW the first that rounds beyond it."""
    oracle = ORACLE[dtype]
    assert float(np.asarray(LARGEST[dtype], np.float64).astype(oracle)) == LARGEST[dtype]
    below = np.asarray(np.nextafter(OVERFLOW[dtype], 0.0), np.float64)
    # ml_dtypes goes through float32, where the number just below would round up twice.
    if dtype is not DType.BF16:
        with np.errstate(over="ignore"):
            assert float(below.astype(oracle)) == LARGEST[dtype]
            assert np.isinf(np.asarray(OVERFLOW[dtype], np.float64).astype(oracle))
    assert float(ml_dtypes.finfo(oracle).smallest_normal) == SMALLEST_NORMAL[dtype]


@pytest.mark.parametrize("source", list(DType))
@pytest.mark.parametrize("target", list(DType))
def test_convert_keeps_infinities_and_nan(source, target):
    """Infinity stays, NaN stays NaN with its sign and becomes quiet; the same dtype is a copy."""
    top = INFINITY[source]
    sign = MAGNITUDE[source] + 1
    words = np.array([0, 1 << 2, top, top | sign, top | 1, top | 1 | sign], source.bits)
    out = np.empty(words.shape, target.bits)
    convert(words, source, target, out, Scratch())
    if source is target:
        assert np.array_equal(out, words)
        return
    seen = out.view(ORACLE[target]).astype(np.float32)
    assert seen[0] == 0
    assert seen[2] == np.inf
    assert seen[3] == -np.inf
    assert np.isnan(seen[4:]).all()
    assert list(np.signbit(seen[4:])) == [False, True]
    quiet = {DType.F16: 0x200, DType.BF16: 0x40, DType.F32: 0x400000}[target]
    assert (out[4:] & quiet).all()


@pytest.mark.parametrize("source", HALVES)
def test_convert_there_and_back_is_exact(source):
    """Every pattern but signalling NaN survives float32."""
    wide, back = np.empty(1 << 16, np.uint32), np.empty(1 << 16, np.uint16)
    convert(ALL_WORDS, source, DType.F32, wide, Scratch())
    convert(wide, DType.F32, source, back, Scratch())
    quiet = {DType.F16: 0x200, DType.BF16: 0x40}[source]
    nan = (ALL_WORDS & MAGNITUDE[source]) > INFINITY[source]
    assert np.array_equal(back, np.where(nan, ALL_WORDS | quiet, ALL_WORDS))


@pytest.mark.parametrize("dtype", HALVES)
def test_convert_never_overflows_silently(dtype):
    """A finite number that would become infinite is refused."""
    words = np.array([OVERFLOW[dtype]], np.float32).view(np.uint32)
    out = np.empty(1, np.uint16)
    with pytest.raises(CodecError) as refusal:
        convert(words, DType.F32, dtype, out, Scratch())
    assert refusal.value.error_id == "E501"
    convert(words - 1, DType.F32, dtype, out, Scratch())
    assert out[0] == INFINITY[dtype] - 1

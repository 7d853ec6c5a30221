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


@pytest.mark.parametrize("dtype", HALVES)
def test_narrow_with_a_floor_gives_the_same(dtype):
    """The short way, taken where nothing is small, differs from the long one in no bit."""
    values = corners(dtype)
    values = values[(values == 0) | (np.abs(values) >= SMALLEST_NORMAL[dtype])]
    long, short, direct, signed = (np.empty(values.shape, np.uint16) for _ in range(4))
    narrow(values.copy(), dtype, long, Scratch())
    narrow(values.copy(), dtype, short, Scratch(), floor=SMALLEST_NORMAL[dtype])
    gather(values * (1 / UNIT[dtype]), dtype, direct, Scratch())
    signs = np.where(np.signbit(values), -1, 1).astype(np.int8)
    gather(values * (1 / UNIT[dtype]), dtype, signed, Scratch(), signs=signs)
    assert np.array_equal(long, short)
    assert np.array_equal(long, direct)
    assert np.array_equal(long, signed)


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

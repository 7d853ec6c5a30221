"""fp8_e4m3, fp8_e5m2: ml_dtypes' cast of the scaled number, whatever the page."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from kvq_cli.codecs import NonFinite, page_of
from kvq_cli.codecs.fp8_e4m3 import Fp8E4M3
from kvq_cli.codecs.fp8_e5m2 import Fp8E5M2
from kvq_cli.errors import CodecError
from kvq_cli.numerics import bits as number
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec

ORACLE = {Fp8E4M3: ml_dtypes.float8_e4m3fn, Fp8E5M2: ml_dtypes.float8_e5m2}
LARGEST_CODE = {Fp8E4M3: 0x7E, Fp8E5M2: 0x7B}
FLOATS = {DType.F16: np.float16, DType.BF16: ml_dtypes.bfloat16, DType.F32: np.float32}
TOP = {dtype: float(ml_dtypes.finfo(kind).max) for dtype, kind in FLOATS.items()}
# What a code is off by at most, as a part of the number and as a part of the scale.
PARTS = {Fp8E4M3: (1 / 17, 2.0**-10), Fp8E5M2: (1 / 9, 2.0**-17)}
every_kind = pytest.mark.parametrize("kind", list(ORACLE))
every_dtype = pytest.mark.parametrize("dtype", list(DType))
every_scale = pytest.mark.parametrize("scale", ["f32", "f16"])


def page(values, dtype=DType.F32):
    """A page of float32 values, of one head unless it has three axes, rounded to the dtype."""
    values = np.atleast_2d(np.asarray(values, np.float32))
    values = values if values.ndim == 3 else values[None]
    return Page(PageSpec(*values.shape, dtype), values.astype(FLOATS[dtype]).view(dtype.bits))


def numbers(page):
    return page.bits.view(FLOATS[page.spec.dtype]).astype(np.float32)


def restored(codec, original, dtype=None):
    planes = {name: plane.copy() for name, plane in codec.encode(original, Scratch()).items()}
    into = page_of(PageSpec(*original.spec.shape, dtype or original.spec.dtype))
    codec.decode(planes, original.spec, into, Scratch())
    return planes, numbers(into)


def cast(codec, values, scales):
    """The stated arithmetic: a reciprocal, a product, a cast by the oracle."""
    scales = scales.astype(np.float32)
    factors = np.float32(1) / np.where(scales > 0, scales, np.float32(1))
    factors = np.where(scales > 0, factors, np.float32(0))
    scaled = np.clip(values * factors, -np.float32(codec.largest), np.float32(codec.largest))
    return scaled.astype(ORACLE[type(codec)]).view(np.uint8)


def values_of(codec, codes):
    return codes.view(ORACLE[type(codec)]).astype(np.float32)


def wide(dtype, shape, seed=0):
    """Tokens whose magnitudes run over the whole exponent range of the dtype."""
    rng = np.random.default_rng(seed)
    low, high = (-24, 15) if dtype is DType.F16 else (-148, 127)
    rows = np.exp2(rng.uniform(low, high, (*shape[:-1], 1)))
    small = np.exp2(rng.uniform(-20, 0, shape))
    return (rng.uniform(-1, 1, shape) * rows * small).astype(np.float32)


def unit(values, dtype):
    """One unit in the last place."""
    digits = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}[dtype]
    least = {DType.F16: -24, DType.BF16: -133, DType.F32: -149}[dtype]
    exponents = np.where(values == 0, least, np.frexp(values)[1] - digits)
    return np.exp2(np.maximum(exponents, least).astype(float))


def finite_halves_up_to(peak):
    words = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return words[np.abs(words.astype(np.float32)) <= peak].astype(np.float32)


@every_kind
@every_scale
@pytest.mark.parametrize("dtype", [DType.F16, DType.F32])
@pytest.mark.parametrize("peak", [65504, 57344, 30011, 3.501, 448, 1, 0.7, 0.0271, 3e-4, 2.0**-24])
def test_every_half_is_cast_as_the_oracle_does(kind, scale, dtype, peak):
    """All finite halves up to a peak, next to that peak, have the codes of ml_dtypes."""
    codec = kind(scale=scale)
    halves = finite_halves_up_to(float(np.float16(peak)))
    rows = np.full((-(-halves.size // 63), 64), np.float16(peak), np.float32)
    rows[:, 1:].flat[: halves.size] = halves
    planes = codec.encode(page(rows, dtype), Scratch())
    assert np.array_equal(planes["codes"], cast(codec, rows[None], planes["scales"]))
    usual = np.float32(np.float16(peak)) / np.float32(codec.largest)
    if scale == "f32" or usual >= 2.0**-14:
        assert (planes["scales"] == usual.astype(planes["scales"].dtype)).all()
    else:
        assert (planes["scales"] == np.ceil(usual * np.float32(2.0**24)) * 2.0**-24).all()


def means_of(planes, dtype):
    """The means as float32."""
    return planes["means"].view(FLOATS[dtype]).astype(np.float32)


@every_kind
@every_dtype
@every_scale
@pytest.mark.parametrize("center", [False, True])
def test_codes_are_the_stated_arithmetic(kind, dtype, scale, center):
    """Over all exponents, codes are casts of (x - mean) / scale, one rounding each."""
    codec = kind(scale=scale, center=center)
    most = 1e6 if scale == "f16" else TOP[dtype] / 4
    original = page(np.clip(wide(dtype, (2, 40, 33)), -most, most), dtype)
    planes = codec.encode(original, Scratch())
    values = numbers(original)
    if center:
        values = np.where(planes["centred"], values - means_of(planes, dtype), values)
    scales = planes["scales"].astype(np.float32)
    chosen = np.broadcast_to((scales == 0) | (scales >= 2.0**-126), values.shape)
    expected = cast(codec, values, np.where(scales < 2.0**-126, np.float32(0), scales))
    assert chosen.mean() > 0.8
    assert np.array_equal(planes["codes"][chosen], expected[chosen])


@every_kind
@pytest.mark.parametrize("dtype", [DType.F16, DType.F32])
@pytest.mark.parametrize("power", [-9, -1, 0, 6])
def test_ties_and_their_neighbours(kind, dtype, power):
    """Where the scale is a power of two, ties go to the even code, and a step aside decides."""
    codec = kind()
    codes = np.arange(LARGEST_CODE[kind] + 1, dtype=np.uint8)
    ladder = values_of(codec, codes)
    if kind is Fp8E5M2 and dtype is DType.F16:
        ladder, power = ladder[ladder >= 2.0**-13], min(power, 0)
    steps = ((ladder[1:] + ladder[:-1]) / 2 * np.float32(2.0**power)).astype(FLOATS[dtype])
    rows = [np.nextafter(steps, FLOATS[dtype](end)) for end in (0, 1e4)] + [steps, -steps]
    rows = np.array(rows, np.float32)
    peaks = np.full((4, 1), codec.largest * 2.0**power, np.float32)
    original = np.concatenate([peaks, rows], axis=1)
    planes = codec.encode(page(original, dtype), Scratch())
    assert (planes["scales"] == 2.0**power).all()
    assert np.array_equal(planes["codes"], cast(codec, original[None], planes["scales"]))
    assert not (planes["codes"][0, 2:, 1:] & 1).any()


@every_kind
@every_scale
@every_dtype
def test_no_peak_becomes_infinite(kind, scale, dtype):
    """The largest element of a row has the largest code, even where x / scale rounds above it."""
    codec = kind(scale=scale)
    least = codec.largest * 2.0 ** (-14 if scale == "f16" else -110)
    if dtype is DType.F16:
        peaks = finite_halves_up_to(65504)
        peaks = peaks[peaks >= least]
    else:
        rng = np.random.default_rng(57344)
        most = 65000 * codec.largest if scale == "f16" else TOP[dtype] / 2
        peaks = np.exp(rng.uniform(np.log(least), np.log(most), 60_000)).astype(np.float32)
    original = page(peaks[:, None], dtype)
    planes, back = restored(codec, original)
    peaks = numbers(original)
    factors = np.float32(1) / planes["scales"].astype(np.float32)
    assert (peaks * factors > codec.largest).any()
    assert (planes["codes"] == LARGEST_CODE[kind]).all()
    assert np.isfinite(back).all()
    assert (np.abs(back / peaks - 1) < 0.002 + 2.0**-8 * (dtype is DType.BF16)).all()


@every_kind
@every_dtype
@every_scale
@pytest.mark.parametrize("seed", range(3))
def test_error_is_within_the_stated_bound(kind, dtype, scale, seed):
    """A part of the number or of the scale, whichever is more, besides the final rounding."""
    values = wide(dtype, (1, 60, 24), seed)
    if scale == "f16":
        values = np.clip(values, -1e7, 1e7)
    original = page(values, dtype)
    planes, back = restored(kind(scale=scale), original)
    exact = numbers(original).astype(np.float64)
    relative, absolute = PARTS[kind]
    steps = planes["scales"].astype(np.float64)
    bound = 1.00001 * np.maximum(relative * np.abs(exact), absolute * steps)
    assert (np.abs(back - exact) <= bound + unit(back, dtype) / 2 + 2.0**-150).all()


@every_kind
@every_dtype
@pytest.mark.parametrize("offset", [0, 10, 3000])
def test_error_of_centred_pages(kind, dtype, offset):
    """The bound holds for what is left of the number when its mean is off."""
    rng = np.random.default_rng(offset)
    values = rng.standard_normal((2, 60, 24)) + offset * rng.standard_normal((2, 1, 24))
    original = page(values, dtype)
    planes, back = restored(kind(center=True), original)
    means = planes["means"].view(FLOATS[dtype]).astype(np.float64)
    exact = numbers(original).astype(np.float64)
    assert np.abs(means - exact.mean(axis=1, keepdims=True)).max() <= 2.0**-7 * (offset * 4 + 1)
    relative, absolute = PARTS[kind]
    taken = np.where(planes["centred"], means, 0)
    bound = 1.00001 * np.maximum(
        relative * np.abs(exact - taken), absolute * planes["scales"].astype(np.float64)
    )
    bound += np.abs(means) * 2.0**-24 + 2.0**-150
    assert (np.abs(back - exact) <= bound + unit(back, dtype) / 2).all()


@every_kind
@pytest.mark.parametrize("units", [1, 2, 447, 448, 449, 4032, 57343, 57344, 57345, 448 << 14])
def test_subnormal_scales_are_never_too_small(kind, units):
    """Rows near the bottom of float32 have finite codes and their error in bounds."""
    peak = np.array([units], np.uint32).view(np.float32)[0]
    original = page([[peak, -peak, peak / 2, 0]])
    planes, back = restored(kind(), original)
    assert ((planes["codes"] & 0x7F) <= LARGEST_CODE[kind]).all()
    exact = numbers(original).astype(np.float64)
    relative, absolute = PARTS[kind]
    scale = float(planes["scales"][0, 0, 0])
    bound = np.maximum(relative * np.abs(exact), absolute * scale)
    assert (np.abs(back - exact) <= 1.00001 * bound + 2.0**-150).all()


@every_kind
@every_dtype
@every_scale
def test_padded_pages_are_encoded_as_sparse_ones(kind, dtype, scale, monkeypatch):
    """Many zeros and small elements change neither codes nor what is restored."""
    rng = np.random.default_rng(4)
    values = rng.standard_normal((2, 200, 64)).astype(np.float32)
    values[:, 30:] = 0
    values[:, ::5] *= 1e-4
    values[:, 3, 1:] *= 1e-6
    values[0, 7, ::2] = -0.0
    codec = kind(scale=scale)
    planes, back = restored(codec, page(values, dtype))
    alone, alone_back = restored(codec, page(values[:, :30], dtype))
    for name in ("scales", "codes"):
        assert np.array_equal(planes[name][:, :30], alone[name])
    assert np.array_equal(back[:, :30], alone_back)
    assert not planes["codes"][:, 30:].any()
    for many in (1, 1 << 40):
        monkeypatch.setattr(number, "MANY", many)
        found, found_back = restored(codec, page(values, dtype))
        assert all(np.array_equal(found[name], planes[name]) for name in planes)
        assert np.array_equal(found_back.view(np.uint32), back.view(np.uint32))


@every_kind
@every_dtype
def test_minus_zero_comes_back(kind, dtype):
    """Zeros, and numbers that round to zero, keep their sign; plus a mean they are plus zero."""
    top, tiny = kind.largest, kind.least / 4
    original = page([[0.0, -0.0, 0.0], [top, -0.0, -tiny], [-top, 0.0, tiny]], dtype)
    planes, back = restored(kind(), original)
    assert planes["scales"][0, 0, 0] == 0
    assert planes["codes"][0, 0].tolist() == [0, 0x80, 0]
    assert planes["codes"][0, :, 2].tolist() == [0, 0x80, 0]
    assert np.array_equal(np.signbit(back), np.signbit(numbers(original)))
    _, centred = restored(kind(center=True), page([[-0.0, 5], [-0.0, 6]], dtype))
    assert not np.signbit(centred[0, :, 0]).any()


@every_kind
@pytest.mark.parametrize("target", list(DType))
@pytest.mark.parametrize("source", list(DType))
@pytest.mark.parametrize("center", [False, True])
def test_other_targets_are_rounded_once(kind, source, target, center):
    """What is restored is number · scale + mean in float32, rounded once to the target."""
    original = page(np.clip(wide(DType.F16, (2, 40, 24)), -20000, 20000), source)
    codec = kind(center=center)
    planes, back = restored(codec, original, target)
    exact = values_of(codec, planes["codes"]) * planes["scales"]
    if center:
        exact = np.where(planes["centred"], exact + means_of(planes, source), exact)
    expected = exact.astype(FLOATS[target]).astype(np.float32)
    assert np.array_equal(back.view(np.uint32), expected.view(np.uint32))


@every_kind
@pytest.mark.parametrize("code", [0, 1, 7, 8, 0x3F, 0x78])
def test_every_code_is_restored(kind, code):
    """Any finite code under any scale, zero among them, is that number times the scale."""
    codec, spec = kind(), PageSpec(1, 5, 2, DType.F32)
    codes = np.full(spec.shape, [code, code | 0x80], np.uint8)
    scales = np.array([0, 1, 3, 2.0**-140, 0.1], np.float32).reshape(1, 5, 1)
    into = page_of(spec)
    codec.decode({"scales": scales, "codes": codes}, spec, into, Scratch())
    expected = values_of(codec, codes) * scales
    assert np.array_equal(into.bits, expected.view(np.uint32))


@every_kind
@every_dtype
@every_scale
@pytest.mark.parametrize("center", [False, True])
def test_the_largest_numbers_stay_finite(kind, dtype, scale, center):
    """largest · scale + mean may round beyond the dtype; its largest number is then restored."""
    peak = TOP[dtype]
    codec = kind(scale=scale, center=center)
    if scale == "f16" and dtype is not DType.F16:
        peak = codec.largest * (30000.0 if center else 60000.0)
    original = page([[peak, -peak, 0.0, peak], [peak, -peak, 0.0, -peak], [peak] * 4], dtype)
    _, back = restored(codec, original)
    exact = numbers(original).astype(np.float64)
    assert np.isfinite(back).all()
    assert (np.abs(back / exact[0, 0, 0] - exact / exact[0, 0, 0]) < 0.2).all()


@every_kind
def test_half_scales_have_an_end(kind):
    """A row whose scale would round above 65504 cannot have a half-precision one, and says so."""
    codec = kind(scale="f16")
    end = np.float32(65520 * codec.largest)
    with pytest.raises(CodecError) as refusal:
        codec.encode(page([[end]]), Scratch())
    assert refusal.value.error_id == "E501"
    assert not isinstance(refusal.value, NonFinite)
    planes, back = restored(codec, page([[np.nextafter(end, np.float32(0))]]))
    assert planes["scales"][0, 0, 0] == 65504
    assert back[0, 0, 0] == 65504 * codec.largest


@every_kind
@every_scale
def test_an_extreme_token_leaves_the_others_alone(kind, scale):
    """A token of 6000 has a scale of its own: all others are coded as without it."""
    rng = np.random.default_rng(6)
    values = rng.standard_normal((1, 64, 32)).astype(np.float32)
    values[0, 20] = 0
    plain, plain_back = restored(kind(scale=scale), page(values, DType.F16))
    values[0, 11] = 6000 * np.sign(values[0, 11])
    planes, back = restored(kind(scale=scale), page(values, DType.F16))
    others = np.arange(64) != 11
    assert np.array_equal(planes["codes"][:, others], plain["codes"][:, others])
    assert np.array_equal(back[:, others], plain_back[:, others])
    assert not back[0, 20].any()
    assert (np.abs(back[0, 11] / values[0, 11] - 1) < 0.001).all()


@every_kind
@every_scale
def test_long_rows_of_large_numbers(kind, scale):
    """128 times 6000, a norm beyond the largest half, is restored to within a half's rounding."""
    _, back = restored(kind(scale=scale), page([[6000.0, -6000.0] * 64], DType.F16))
    assert np.abs(np.abs(back) - 6000).max() <= 4


@every_kind
@every_dtype
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("extra", [0, 1, -1])
def test_non_finite_is_named(kind, dtype, center, extra):
    """The refusal carries the first offender and the heads that hold any."""
    spec = PageSpec(3, 4, 5, dtype)
    bits = np.zeros(spec.shape, dtype.bits)
    top = number.INFINITY[dtype]
    bits[1, 2, 3] = top + extra if extra >= 0 else 2 * (number.MAGNITUDE[dtype] + 1) - 1
    bits[2, 0, 0] = top | (number.MAGNITUDE[dtype] + 1)
    with pytest.raises(NonFinite) as refusal:
        kind(center=center).encode(Page(spec, bits), Scratch())
    assert refusal.value.error_id == "E501"
    assert refusal.value.first == (1, 2, 3)
    assert refusal.value.heads.tolist() == [False, True, True]


@every_kind
@pytest.mark.parametrize(
    ("plane", "words"),
    [
        ("codes", [0x7F]),
        ("codes", [0xFF]),
        ("scales", [np.inf]),
        ("scales", [np.nan]),
        ("scales", [-1.0]),
        ("scales", [-0.0]),
        ("scales", [1e36]),
        ("means", [0x7F800000]),
        ("means", [0xFFC00000]),
        ("centred", [2]),
        ("centred", [255]),
    ],
)
def test_impossible_planes_are_refused(kind, plane, words):
    """Codes, scales and means that no encoder writes are damage."""
    spec = PageSpec(1, 1, 1, DType.F32)
    planes = {
        "means": np.zeros((1, 1, 1), np.uint32),
        "centred": np.ones((1, 1, 1), np.uint8),
        "scales": np.ones((1, 1, 1), np.float32),
        "codes": np.ones((1, 1, 1), np.uint8),
    }
    codec = kind(center=True)
    codec.decode(planes, spec, page_of(spec), Scratch())
    planes[plane] = np.array(words, planes[plane].dtype).reshape(1, 1, 1)
    with pytest.raises(CodecError) as refusal:
        codec.decode(planes, spec, page_of(spec), Scratch())
    assert refusal.value.error_id == "E502"


@every_kind
@pytest.mark.parametrize("center", [False, True])
def test_narrower_targets_refuse_what_they_cannot_hold(kind, center):
    """F32 pages decode to F16 unless a number would become infinite."""
    codec = kind(center=center)
    spec, into = PageSpec(1, 1, 1, DType.F32), page_of(PageSpec(1, 1, 1, DType.F16))
    planes = codec.encode(page([[1e6]]), Scratch())
    with pytest.raises(CodecError) as refusal:
        codec.decode(planes, spec, into, Scratch())
    assert refusal.value.error_id == "E501"
    _, back = restored(codec, page([[57344.0]]), DType.F16)
    assert back[0, 0, 0] == 57344

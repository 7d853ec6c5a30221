"""int8: the arithmetic, step by step, against a slow and plain statement of it."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.codecs import NonFinite, page_of
from kvq_cli.codecs.int8 import Int8
from kvq_cli.errors import CodecError
from kvq_cli.numerics import rows
from kvq_cli.numerics.bits import widen
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec


def page(values, dtype=DType.F32):
    """A page of one head; float32 values are cut, not rounded, to the dtype."""
    values = np.atleast_2d(np.asarray(values, np.float32))[None]
    spec = PageSpec(*values.shape, dtype)
    if dtype is DType.F16:
        return Page(spec, values.astype(np.float16).view(np.uint16))
    words = values.view(np.uint32)
    return Page(spec, words if dtype is DType.F32 else (words >> 16).astype(np.uint16))


def number(page):
    out = np.empty(page.spec.shape, np.float32)
    widen(page.bits, page.spec.dtype, out)
    return out


def restored(codec, original, dtype=None):
    planes = codec.encode(original, Scratch())
    spec = original.spec
    into = page_of(PageSpec(*spec.shape, dtype or spec.dtype))
    codec.decode(planes, spec, into, Scratch())
    return planes, number(into)


def wide(dtype, shape, seed=0):
    """Rows whose magnitudes run over the whole exponent range of the dtype."""
    rng = np.random.default_rng(seed)
    low, high = (-24, 15) if dtype is DType.F16 else (-148, 127)
    rows = rng.uniform(low, high, (shape[0], 1))
    values = rng.standard_normal(shape) * 0.25 * np.exp2(rows)
    return values.astype(np.float32)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axis", ["token", "channel"])
def test_codes_are_the_stated_arithmetic(dtype, axis):
    """Where no scale is subnormal, encode is three correctly rounded float32 operations."""
    original = page(wide(dtype, (40, 24)), dtype)
    values = number(original)
    codec = Int8(axis=axis)
    planes = codec.encode(original, Scratch())
    row = 2 if axis == "token" else 1
    scales = np.abs(values).max(axis=row, keepdims=True) / np.float32(127)
    normal = scales >= np.float32(2.0**-126)
    assert np.array_equal(planes["scales"][normal], scales[normal])
    factor = np.float32(1) / np.where(normal, scales, np.float32(1))
    with np.errstate(over="ignore"):
        codes = np.rint(values * factor)
    chosen = np.broadcast_to(normal, codes.shape)
    assert np.array_equal(planes["codes"][chosen], codes[chosen].astype(np.int8))


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axis", ["token", "channel"])
@pytest.mark.parametrize("scale", ["f32", "f16"])
@pytest.mark.parametrize("seed", range(4))
def test_error_is_half_a_step(dtype, axis, scale, seed):
    """Over all exponents the error is half a scale, and half a unit in the last place."""
    values = wide(dtype, (40, 24), seed)
    if scale == "f16":
        values = np.clip(values, -8e6, 8e6)
    original = page(values, dtype)
    planes, back = restored(Int8(axis=axis, scale=scale), original)
    exact = number(original).astype(np.float64)
    steps = planes["scales"].astype(np.float64)
    digits = {DType.F16: 11, DType.BF16: 8, DType.F32: 24}[dtype]
    least = {DType.F16: -24, DType.BF16: -133, DType.F32: -149}[dtype]
    unit = np.exp2(np.maximum(np.frexp(exact)[1] + 1 - digits, least))
    assert (np.abs(back - exact) <= 0.5001 * steps + 0.5 * unit).all()


@pytest.mark.parametrize("units", [1, 2, 50, 127, 128, 190, 191, 254, 4032, 1 << 20, 127 << 16])
def test_subnormal_scales_never_pass_127(units):
    """Rows near the bottom of float32 keep their codes in range and their error in bounds."""
    peak = np.array([units], np.uint32).view(np.float32)[0]
    original = page([[peak, -peak, peak / 2, 0]])
    planes, back = restored(Int8(), original)
    assert np.abs(planes["codes"].astype(int)).max() <= 127
    exact = number(original).astype(np.float64)
    assert (np.abs(back - exact) <= 0.5001 * float(planes["scales"][0, 0, 0])).all()
    if units <= 127:
        assert np.array_equal(back, number(original))


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("scale", ["f32", "f16"])
def test_the_largest_numbers_stay_finite(dtype, scale):
    """127 · scale may round beyond the dtype; what is restored is then its largest number."""
    top = {DType.F16: 65504.0, DType.BF16: 3.3895313892515355e38, DType.F32: 3.4028234663852886e38}
    peak = top[dtype] if scale == "f32" or dtype is DType.F16 else 65504.0 * 127
    original = page([[peak, -peak, 0.0]], dtype)
    _, back = restored(Int8(scale=scale), original)
    assert np.isfinite(back).all()
    assert np.abs(back[0, 0, :2] / number(original)[0, 0, :2] - 1).max() < 0.002


def test_half_scales_have_an_end():
    """A row beyond 127 · 65504 cannot have a half-precision scale, and says so."""
    with pytest.raises(CodecError) as refusal:
        Int8(scale="f16").encode(page([[1e7]]), Scratch())
    assert refusal.value.error_id == "E501"
    assert not isinstance(refusal.value, NonFinite)


def test_zero_rows_are_zero():
    """A zero row has scale 0, codes 0, and comes back as +0; minus zero loses its sign."""
    planes, back = restored(Int8(), page([[0.0, -0.0], [1.0, 2.0]]))
    assert planes["scales"][0, 0, 0] == 0
    assert not planes["codes"][0, 0].any()
    assert not np.signbit(back[0, 0]).any()


def test_tiny_rows_are_not_spoiled():
    """There is no floor under scales: a tiny row has the relative error of a large one."""
    values = np.linspace(-1, 1, 64, dtype=np.float32)
    for exponent in (0, -30, -100, -110):
        _, back = restored(Int8(), page([values * np.float32(2.0**exponent)]))
        error = np.abs(back[0, 0] * np.float64(2.0**-exponent) - values)
        assert error.max() <= 0.5001 / 127


@pytest.mark.parametrize("axis", ["token", "channel"])
def test_non_finite_is_named(axis):
    """The refusal carries the first offender and the heads that hold any."""
    spec = PageSpec(3, 4, 5, DType.F16)
    bits = np.zeros(spec.shape, np.uint16)
    bits[1, 2, 3] = 0x7E00
    bits[2, 0, 0] = 0xFC00
    with pytest.raises(NonFinite) as refusal:
        Int8(axis=axis).encode(Page(spec, bits), Scratch())
    assert refusal.value.error_id == "E501"
    assert refusal.value.first == (1, 2, 3)
    assert refusal.value.heads.tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("plane", "words"),
    [
        ("codes", [-128]),
        ("scales", [np.inf]),
        ("scales", [np.nan]),
        ("scales", [-1.0]),
        ("scales", [-0.0]),
        ("scales", [3e36]),
    ],
)
def test_impossible_planes_are_refused(plane, words):
    """Codes and scales that no encoder writes are damage."""
    spec = PageSpec(1, 1, 1, DType.F32)
    planes = {"scales": np.ones((1, 1, 1), np.float32), "codes": np.ones((1, 1, 1), np.int8)}
    planes[plane] = np.array(words, planes[plane].dtype).reshape(1, 1, 1)
    with pytest.raises(CodecError) as refusal:
        Int8().decode(planes, spec, page_of(spec), Scratch())
    assert refusal.value.error_id == "E502"


def test_narrower_targets_refuse_what_they_cannot_hold():
    """F32 pages decode to F16 unless a number would become infinite."""
    codec = Int8()
    planes = codec.encode(page([[1e6]]), Scratch())
    spec, into = PageSpec(1, 1, 1, DType.F32), page_of(PageSpec(1, 1, 1, DType.F16))
    with pytest.raises(CodecError) as refusal:
        codec.decode(planes, spec, into, Scratch())
    assert refusal.value.error_id == "E501"
    _, back = restored(codec, page([[65504.0]]), DType.F16)
    assert back[0, 0, 0] == 65504


@pytest.mark.parametrize("target", list(DType))
@pytest.mark.parametrize("source", list(DType))
def test_other_targets_are_rounded_once(source, target):
    """Decoding into any dtype is code · scale in float32, rounded once to that dtype."""
    original = page(np.clip(wide(DType.F16, (40, 24)), -30000, 30000), source)
    planes, back = restored(Int8(), original, target)
    product = planes["codes"].astype(np.float32) * planes["scales"]
    if target is DType.F16:
        product = product.astype(np.float16).astype(np.float32)
    if target is DType.BF16:
        words = product.view(np.uint32)
        words = (words + 0x7FFF + (words >> 16 & 1)) >> 16 << 16
        product = words.view(np.float32)
    assert np.array_equal(back, product)


def constants(dtype, tokens=40):
    """Keys of a model with biases: a large constant in every other channel."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal((tokens, 24))
    values[:, ::2] += rng.uniform(-200, 200, 12)
    return page(values, dtype)


def means_of(original, planes):
    """What was taken off each token: its means, or nothing."""
    means = rows.values(planes["means"], original.spec.dtype)
    return means * planes.get("centred", np.ones((1, 1, 1), np.uint8))


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axis", ["token", "channel"])
@pytest.mark.parametrize("scale", ["f32", "f16"])
def test_centred_codes_are_those_of_the_page_less_its_means(dtype, axis, scale):
    """What is coded are float32 differences, as if they were a page of their own."""
    original = constants(dtype)
    planes = Int8(axis=axis, scale=scale, center=True).encode(original, Scratch())
    plain = Int8(axis=axis, scale=scale)
    less = number(original) - means_of(original, planes)
    expected = plain.encode(page(less[0]), Scratch())
    assert np.array_equal(planes["scales"], expected["scales"])
    assert np.array_equal(planes["codes"], expected["codes"])


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axis", ["token", "channel"])
def test_centred_pages_are_restored_with_their_means(dtype, axis):
    """Product plus mean, both float32, and one rounding."""
    original = constants(dtype)
    planes, back = restored(Int8(axis=axis, center=True), original)
    product = planes["codes"].astype(np.float32) * planes["scales"]
    assert np.array_equal(back, once(product + means_of(original, planes), dtype))


def once(values, dtype):
    """Rounded once to the dtype, half to even."""
    if dtype is DType.F32:
        return values
    if dtype is DType.F16:
        return values.astype(np.float16).astype(np.float32)
    words = values.view(np.uint32)
    return ((words + 0x7FFF + (words >> 16 & 1)) >> 16 << 16).view(np.float32)


@pytest.mark.parametrize("dtype", list(DType))
def test_tokens_are_centred_where_that_makes_them_smaller(dtype):
    """Of two equal reaches the token without means is taken; so are zero tokens and heads."""
    rng = np.random.default_rng(5)
    values = rng.standard_normal((40, 24)) + np.where(np.arange(24) % 3, 0, 9)
    values[4], values[7] = 0, -values[7]
    original = page(values, dtype)
    planes = Int8(center=True).encode(original, Scratch())
    less = number(original) - rows.values(planes["means"], dtype)
    smaller = np.abs(less).max(axis=2) < np.abs(number(original)).max(axis=2)
    assert np.array_equal(planes["centred"][..., 0], smaller)
    assert not planes["centred"][0, [4, 7]].any()
    # The means are 2 and 1.5; token 1 reaches 2 with them and without.
    for some, expected in (([[4, 1], [0, 2]], [1, 0]), ([[0, 0], [0, 0]], [0, 0])):
        planes = Int8(center=True).encode(page(some, dtype), Scratch())
        assert planes["centred"].reshape(-1).tolist() == expected


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32])
def test_constant_channels_cost_nothing_when_centred(dtype):
    """Rows of large constants have the scales of what varies."""
    original = constants(dtype)
    plain, _ = restored(Int8(), original)
    planes, back = restored(Int8(center=True), original)
    assert planes["scales"].max() < plain["scales"].min() / 8
    assert np.abs(back - number(original)).max() < 0.1


@pytest.mark.parametrize("center", [False, True])
def test_an_extreme_token_has_a_scale_of_its_own(center):
    """One token of 6000 among small ones: no other token is coded worse than its own size."""
    rng = np.random.default_rng(3)
    values = rng.standard_normal((64, 32))
    values[9] = np.where(np.arange(32) % 2, 6000, -6000)
    original = page(values, DType.F16)
    _, back = restored(Int8(center=center), original)
    error = np.abs(back - number(original))[0]
    peaks = np.abs(number(original))[0].max(axis=1)
    assert (error.max(axis=1) <= 0.502 / 127 * peaks + 2.0**-10 * (peaks + 100 * center)).all()


def test_non_finite_is_named_when_centred():
    """Means are never taken of a page that holds infinity."""
    values = np.ones((5, 3), np.float32)
    values[2, 1], values[4, 0] = np.inf, np.nan
    for axis in ("token", "channel"):
        with pytest.raises(NonFinite) as refusal:
            Int8(axis=axis, center=True).encode(page(values), Scratch())
        assert refusal.value.first == (0, 2, 1)


@pytest.mark.parametrize("word", [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF])
def test_means_that_are_not_finite_are_refused(word):
    """Infinities and NaN are damage; every finite mean is possible."""
    spec = PageSpec(1, 2, 3, DType.F32)
    codec = Int8(center=True)
    planes = {
        name: plane.copy() for name, plane in codec.encode(page([[1, 2, 3]] * 2), Scratch()).items()
    }
    planes["means"][0, 0, 1] = 0x7F7FFFFF
    codec.decode(planes, spec, page_of(spec), Scratch())
    planes["means"][0, 0, 1] = word
    with pytest.raises(CodecError) as refusal:
        codec.decode(planes, spec, page_of(spec), Scratch())
    assert refusal.value.error_id == "E502"


def test_a_sum_beyond_the_dtype_is_its_largest_number():
    """A restored difference and its mean may pass the largest half together."""
    original = page([[65504.0, 1], [65504.0, 2], [-65504.0, 3]], DType.F16)
    _, back = restored(Int8(axis="channel", center=True), original)
    assert np.isfinite(back).all()
    assert np.abs(back[0, :, 0] / number(original)[0, :, 0] - 1).max() < 0.01

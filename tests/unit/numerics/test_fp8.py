"""fp8: bit for bit what ml_dtypes casts, over every code, half and tie."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from kvq_cli.errors import CodecError
from kvq_cli.numerics import bits as number
from kvq_cli.numerics.fp8 import E4M3, E5M2, check_finite
from kvq_cli.numerics.scratch import Scratch

ORACLE = {E4M3: ml_dtypes.float8_e4m3fn, E5M2: ml_dtypes.float8_e5m2}
FORMS = [pytest.param(E4M3, id="e4m3"), pytest.param(E5M2, id="e5m2")]
ALL_CODES = np.arange(256, dtype=np.uint8)
ALL_HALVES = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
HALVES = ALL_HALVES[np.isfinite(ALL_HALVES)].astype(np.float32)
every_form = pytest.mark.parametrize("form", FORMS)


def finite_codes(form):
    return ALL_CODES[np.isfinite(ALL_CODES.view(ORACLE[form]).astype(np.float32))]


def encoded(form, values):
    """Codes of values of any shape; encode may use up what it is given."""
    values = np.array(values, np.float32)
    out = np.full(values.shape, 0xA5, np.uint8)
    form.encode(values, out, Scratch())
    return out


def oracle(form, values):
    return np.asarray(values, np.float32).astype(ORACLE[form]).view(np.uint8)


def decoded(form, codes):
    out = np.full(codes.shape, np.nan, np.float32)
    form.decode(codes, out)
    return out


def ties(form):
    """The numbers half way between two codes that follow each other, of both signs."""
    numbers = np.unique(decoded(form, finite_codes(form)))
    return (numbers[1:] + numbers[:-1]) / np.float32(2)


def below_overflow(form):
    """Numbers from the largest on that still round to it, the last one among them."""
    step = np.float32(2.0 ** (np.frexp(form.largest)[1] - 1 - form.mantissa))
    end = np.float32(form.largest) + step / 2
    # 448 is even, so its tie is its own; 57344 is odd.
    last = end if form.largest_code % 2 == 0 else np.nextafter(end, np.float32(0))
    return np.linspace(form.largest, last, 999, dtype=np.float32)


@every_form
def test_decode_is_the_oracle_for_every_finite_code(form):
    """Numbers agree to the bit, the sign of zero included."""
    codes = finite_codes(form)
    expected = codes.view(ORACLE[form]).astype(np.float32)
    assert np.array_equal(decoded(form, codes).view(np.uint32), expected.view(np.uint32))


@every_form
def test_every_finite_code_is_its_own_rounding(form):
    """What a code stands for is encoded as that code."""
    codes = finite_codes(form)
    assert np.array_equal(encoded(form, decoded(form, codes)), codes)


@every_form
def test_the_other_codes_are_refused(form):
    """Of all 256 codes those that are infinite or NaN are damage, and no others."""
    finite = set(finite_codes(form).tolist())
    for code in ALL_CODES:
        if int(code) in finite:
            check_finite(np.array([0, code, 0], np.uint8), form, "codec")
            continue
        with pytest.raises(CodecError) as refusal:
            check_finite(np.array([0, code, 0], np.uint8), form, "codec")
        assert refusal.value.error_id == "E502"


@every_form
def test_constants_agree_with_the_oracle(form):
    """Largest, least, bias and mantissa are those of the format."""
    facts = ml_dtypes.finfo(ORACLE[form])
    assert form.largest == float(facts.max)
    assert form.least == float(facts.smallest_subnormal)
    assert form.mantissa == facts.nmant
    assert 2.0 ** (1 - form.bias) == float(facts.smallest_normal)
    assert int(encoded(form, [form.largest])[0]) == form.largest_code


@every_form
def test_ties_and_their_neighbours(form):
    """Half way goes to the even code; a step of float32 to either side decides."""
    exact = ties(form)
    up, down = (np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf))
    for values in (exact, up, down):
        assert np.array_equal(encoded(form, values), oracle(form, values))
    assert not (encoded(form, exact) & 1).any()


@every_form
@pytest.mark.parametrize("exponent", range(-12, 13, 3))
def test_every_half_under_many_scales(form, exponent):
    """Every finite half, times powers of two, their neighbours and odd factors, is the oracle's."""
    power = np.float32(2.0**exponent)
    factors = [power, np.nextafter(power, np.float32(0)), np.nextafter(power, np.float32(9))]
    factors += [power * np.float32(odd) for odd in (1 / 3, 0.7, 1.1, 3, np.pi, 448 / 65504)]
    for factor in factors:
        scaled = HALVES * factor
        values = np.clip(scaled, -np.float32(form.largest), np.float32(form.largest))
        assert np.array_equal(encoded(form, values), oracle(form, values))


@every_form
def test_random_numbers_over_forty_decades(form):
    """Magnitudes far below the format, within it and up to its largest number."""
    rng = np.random.default_rng(40)
    decades = rng.uniform(-35, 5, 400_000)
    values = (rng.choice([-1, 1], decades.size) * 10.0**decades).astype(np.float32)
    values = values[np.abs(values) <= form.largest]
    assert np.array_equal(encoded(form, values), oracle(form, values))


@every_form
def test_subnormals_of_the_format(form):
    """A fine sweep over all subnormals, and over the first numbers above them."""
    normal = 2.0 ** (1 - form.bias)
    values = np.linspace(-2.5 * normal, 2.5 * normal, 300_001, dtype=np.float32)
    assert np.array_equal(encoded(form, values), oracle(form, values))
    edge = np.float32(normal) + np.arange(-2000, 2000) * np.float32(2.0**-24 * normal)
    assert np.array_equal(encoded(form, edge), oracle(form, edge))


@every_form
def test_zeros_and_subnormal_float32_keep_their_sign(form):
    """Minus zero is code 128, and so is every negative number that rounds to zero."""
    tiny = np.array([1, 2, 0x7FFFFF], np.uint32).view(np.float32)
    values = np.concatenate([[0.0], tiny, [form.least / 2]]).astype(np.float32)
    assert np.array_equal(encoded(form, values), np.zeros(5, np.uint8))
    assert np.array_equal(encoded(form, -values), np.full(5, 0x80, np.uint8))


@every_form
def test_what_rounds_to_the_largest_is_the_largest(form):
    """Up to half a step above it, where a rounded quotient may lie, nothing overflows."""
    values = below_overflow(form)
    assert values[-1] > form.largest * 1.03
    assert (encoded(form, values) == form.largest_code).all()
    assert (encoded(form, -values) == form.largest_code | 0x80).all()
    assert np.array_equal(encoded(form, values), oracle(form, values))


@every_form
@pytest.mark.parametrize("part", [0, 0.01, 0.03, 0.04, 0.5, 0.97, 1])
def test_few_and_many_small_elements_are_rounded_alike(form, part, monkeypatch):
    """Done over one by one or all at once, small elements get the same codes."""
    rng = np.random.default_rng(8)
    values = rng.uniform(-form.largest, form.largest, (3, 50, 33)).astype(np.float32)
    small = rng.random(values.shape) < part
    values[small] *= np.float32(2.0**-24) * rng.choice([0, 1, 256], small.sum())
    found = encoded(form, values)
    assert np.array_equal(found, oracle(form, values))
    for many in (1, 1 << 40):
        monkeypatch.setattr(number, "MANY", many)
        assert np.array_equal(encoded(form, values), found)


@every_form
def test_scratch_and_strides_change_nothing(form):
    """A scratch that saw other shapes, and codes that are not contiguous, give the same."""
    rng = np.random.default_rng(9)
    scratch = Scratch()
    for shape in ((2, 64, 32), (1, 3, 5), (4, 40, 32)):
        values = (rng.standard_normal(shape) * form.largest / 8).astype(np.float32)
        values[..., ::7] *= np.float32(2.0**-20)
        larger = np.zeros((shape[0], 2 * shape[1], shape[2]), np.uint8)
        form.encode(values.copy(), larger[:, ::2], scratch)
        assert np.array_equal(larger[:, ::2], oracle(form, values))
        assert not larger[:, 1::2].any()

"""fp8: the recipe of fp8_e4m3 and of fp8_e5m2; no codec itself."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterator
from typing import Any

from codec_vectors import scaled_cases
from codec_vectors.fp8_cases import code_damage, large, peaks_above, rounding, tiny
from codec_vectors.recipe import (
    PAINT,
    SIZE_NOTES,
    Case,
    Group,
    PackedPlanes,
    bad_means,
    misfits,
    not_finite,
    pattern,
    replaced,
    words,
)

from kvq_cli.numerics import scales
from kvq_cli.numerics.fp8 import Float8
from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Shape": "one token, one head, one channel, and numbers of channels of no power of two",
    "Tie": "x / scale lies half way between two codes: the one whose last bit is 0 is taken",
    "Near": "x / scale lies next to half way",
    "Small": "x / scale is a subnormal of the format, or rounds from one to the smallest normal",
    "Underflow": "x / scale rounds to zero, which keeps the sign of x",
    "Above": "the largest x times 1 / scale is above the largest code: it gets that code",
    "Zero": "a zero row has scale 0 and codes 0; minus zero has code 128 and comes back",
    "ZeroScale": "a code that is not 0 under scale 0 is restored as a zero of its sign",
    "Tiny": "the reciprocal of the scale times 2**112 would overflow float32",
    "Subnormal": "the page holds subnormal numbers",
    "SubnormalScale": "the scale is subnormal: it is rounded up, or codes would be infinite",
    "Largest": "largest · scale rounds beyond the dtype: the largest finite number is restored",
    "Limit": "a scale that is as large as is allowed, or nearly so",
    "ScaleOverflow": "the scale is beyond the largest finite half",
    "Extreme": "one extreme token: the others have the codes they would have without it",
    "Choice": "a token is centred or not: 1 or 0, and nothing else",
    "Pulled": "one extreme token pulls the means: tokens that these would make larger keep theirs",
    "Norm": "128 elements of 6000, whose norm is beyond the largest half: nothing depends on it",
    "Centred": "each channel's mean is taken off first",
    "Uncentred": "a head that reaches 2**126 has means of 0",
    "PlusZero": "plus a mean, minus zero is plus zero",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Codes": "every finite code, under scales of 1 and of 3",
    "Code": "a code that stands for infinity or NaN is never written",
    "Scale": "a scale that is negative, not finite, or beyond that of the largest number",
    "Mean": "a mean that is infinite or NaN",
    "Convert": "decoded to another dtype: one rounding of number · scale + mean",
    "Overflow": "decoded to a dtype that cannot hold the number",
}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"axis": "token"}, "/axis"),
    ({"group": 32}, "/group"),
    ({"scale": "bf16"}, "/scale"),
    ({"scale": True}, "/scale"),
    ({"scale": None}, "/scale"),
    ({"center": 1}, "/center"),
    ({"center": "true"}, "/center"),
    ({"center": None}, "/center"),
]


def groups(form: Float8) -> list[Group]:
    found = []
    for dtype in DType:
        found += [_plain(form, dtype, "f32"), _plain(form, dtype, "f16")]
        found.append(_centred(form, dtype, "f32"))
    found.append(_centred(form, DType.F16, "f16"))
    plain, centred = ({"scale": "f32", "center": center} for center in (False, True))
    converted = scaled_cases.converted(plain, centred, least=-1e-9, beyond=65536.0)
    return [*found, _every_code(form), *_shapes(), *_extremes(), *converted]


def _plain(form: Float8, dtype: DType, kind: scales.ScaleType) -> Group:
    spec = PageSpec(1, 2, 4, dtype)
    zero_scales = bytes(8 if kind == "f32" else 4)
    cases = [
        Case(["Paint"], PAINT),
        *rounding(form, spec),
        *peaks_above(form, spec, kind),
        Case(["Zero"], words(spec, [0, -0.0, 0, 0, 1, -1, 0, -0.0])),
        *tiny(form, spec, kind),
        *large(form, spec, kind),
        Case(["ZeroScale"], change=_put(scales=zero_scales)),
        *not_finite(spec, 5),
        *scaled_cases.scale_damage(form.largest, dtype, kind, center=False),
        *code_damage(form, 2),
        *misfits(["scales", "codes"]),
    ]
    return Group({"scale": kind, "center": False}, spec, cases)


def _centred(form: Float8, dtype: DType, kind: scales.ScaleType) -> Group:
    spec = PageSpec(1, 3, 4, dtype)
    sign, wide = 1 << (8 * dtype.size - 1), dtype is not DType.F16
    subnormal = [1, 2, sign | 3, 100, 0, 127, 77, 1] + [5] * 4
    cases = [
        Case(["Paint", "Centred"], PAINT),
        Case(["Centred"], words(spec, scaled_cases.OFFSET)),
        Case(["Centred", "PlusZero"], words(spec, [-0.0, 0, 1, -1] * 3)),
        Case(["Centred", "Subnormal"], pattern(spec, subnormal)),
        Case(["Uncentred" if wide else "Centred", "Largest"], scaled_cases.ends(spec)),
    ]
    if wide:
        cases += scaled_cases.far(spec)
    cases += bad_means(dtype)
    # Any choice is possible, whatever an encoder would choose.
    cases += [Case(["Choice"], change=replaced("centred", 1, bytes([at]))) for at in range(4)]
    cases += [
        *not_finite(spec, 9),
        *scaled_cases.scale_damage(form.largest, dtype, kind, center=True),
        *code_damage(form, 11),
        *misfits(["means", "centred", "scales", "codes"]),
    ]
    return Group({"scale": kind, "center": True}, spec, cases)


def _every_code(form: Float8) -> Group:
    """All ties, and all codes: the positive ones in token 0, the negative ones in token 1."""
    count = form.largest_code + 1
    spec = PageSpec(1, 2, count, DType.F32)
    numbers = [_number(form, code) for code in range(count)]
    ties = [(low + high) / 2 for low, high in itertools.pairwise(numbers)]
    row = [form.largest, *ties]
    codes = bytes(range(count)) + bytes(range(128, 128 + count))
    written = _put(scales=struct.pack("<2f", 1, 3), codes=codes)
    cases = [
        Case(["Tie"], words(spec, [*row, *(-number for number in row)])),
        Case(["Codes"], change=written),
    ]
    return Group({"scale": "f32", "center": False}, spec, cases)


def _put(**planes: bytes) -> Callable[[PackedPlanes], PackedPlanes]:
    """Whole planes put in the place of others."""
    return lambda old: {**old, **planes}


def _number(form: Float8, code: int) -> float:
    exponent, fraction = code >> form.mantissa, code & ((1 << form.mantissa) - 1)
    whole = fraction + (1 << form.mantissa if exponent else 0)
    return float(whole * 2.0 ** (max(exponent, 1) - form.bias - form.mantissa))


def _shapes() -> Iterator[Group]:
    for heads, tokens, channels in ((1, 1, 1), (2, 1, 3), (1, 5, 3), (1, 1, 33)):
        for center in (False, True):
            spec = PageSpec(heads, tokens, channels, DType.F16)
            flags = ["Shape", "Paint", *(["Centred"] if center else [])]
            yield Group({"scale": "f16", "center": center}, spec, [Case(flags, PAINT)])
    spec = PageSpec(1, 1, 3, DType.F32)
    numbers = words(spec, [1 / 3, -1e10, 1e-10])
    yield Group({"scale": "f32", "center": True}, spec, [Case(["Shape", "Centred"], numbers)])


def _extremes() -> Iterator[Group]:
    """A token far from the others, and a row with a norm that no half holds."""
    spec = PageSpec(1, 4, 4, DType.F16)
    numbers = words(spec, scaled_cases.EXTREME)
    for center in (False, True):
        flags = ["Centred", "Pulled"] if center else ["Extreme"]
        yield Group({"scale": "f32", "center": center}, spec, [Case(flags, numbers)])
    spec = PageSpec(1, 1, 128, DType.F16)
    cases = [Case(["Norm"], words(spec, [6000] * 128))]
    yield Group({"scale": "f16", "center": False}, spec, cases)

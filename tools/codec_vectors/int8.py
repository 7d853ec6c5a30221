"""int8: rounding, scales at both ends of every format, means, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from codec_vectors import scaled_cases
from codec_vectors.recipe import (
    PAINT,
    SIZE_NOTES,
    Case,
    Group,
    bad_means,
    misfits,
    not_finite,
    pattern,
    replaced,
    words,
)

from kvq_cli.numerics.bits import INFINITY
from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Shape": "one token, one head, one channel, and odd numbers of them",
    "Tie": "x / scale lies half way between two codes: the even one is taken",
    "Zero": "a zero row has scale 0 and codes 0; minus zero comes back as plus zero",
    "ZeroScale": "a code that is not 0 under scale 0 is restored as a zero of its sign",
    "Tiny": "the reciprocal of the scale times 2**112 would overflow float32",
    "SubnormalScale": "max / 127 is subnormal: the scale is rounded up, or codes would pass 127",
    "Subnormal": "the page holds subnormal numbers",
    "Largest": "127 · scale rounds beyond the dtype: the largest finite number is restored",
    "Limit": "a scale that is as large as is allowed",
    "ScaleOverflow": "max / 127 is beyond the largest finite half",
    "Extreme": "one extreme token: with a scale of its own it does not touch the others",
    "Sample": "more than 64 tokens: means are taken over a part of them",
    "Pulled": "one extreme token pulls the means: tokens that these would make larger keep theirs",
    "Norm": "128 elements of 6000, whose norm is beyond the largest half: nothing depends on it",
    "Centred": "each channel's mean is taken off first",
    "Uncentred": "a head that reaches 2**126 has means of 0",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Code": "the code -128 is never written",
    "Scale": "a scale that is negative, not finite, or beyond max / 127 of the largest number",
    "Mean": "a mean that is infinite or NaN",
    "Choice": "a token is centred, 1, or not, 0",
    "Convert": "decoded to another dtype: one rounding of code · scale, or of that + mean",
    "Overflow": "decoded to a dtype that cannot hold the number",
}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"axis": "row"}, "/axis"),
    ({"axis": 0}, "/axis"),
    ({"axis": None}, "/axis"),
    ({"scale": "bf16"}, "/scale"),
    ({"scale": True}, "/scale"),
    ({"center": 1}, "/center"),
    ({"center": "true"}, "/center"),
    ({"center": None}, "/center"),
    ({"group": 32}, "/group"),
]
AXES = ("token", "channel")
MOST = 127.0  # the largest code
NO_CODE = Case(["Code"], change=replaced("codes", 2, b"\x80"))
TIES = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5]


def groups() -> list[Group]:
    kinds = [(dtype, axis, kind) for dtype in DType for axis in AXES for kind in ("f32", "f16")]
    centred = [(dtype, "token", "f32") for dtype in DType]
    centred += [(DType.F16, "channel", "f32"), (DType.BF16, "token", "f16")]
    found = [_plain(*each) for each in kinds] + [_centred(*each) for each in centred]
    plain = {"axis": "token", "scale": "f32"}
    converted = scaled_cases.converted(plain, {"center": True}, least=1e-7, beyond=65520.0)
    return [*found, _sampled(), *_shapes(), *_extremes(), *converted]


def _sampled() -> Group:
    """130 tokens: every third counts, and only those have another constant."""
    spec = PageSpec(1, 130, 1, DType.F16)
    cases = [Case(["Sample"], words(spec, (5 if at % 3 == 0 else -1 for at in range(130))))]
    return Group({"axis": "channel", "center": True, "scale": "f32"}, spec, cases)


def _plain(dtype: DType, axis: str, kind: str) -> Group:
    spec = PageSpec(1, 2, 4, dtype)
    top, sign = INFINITY[dtype], 1 << (8 * dtype.size - 1)
    cases = [
        Case(["Paint"], PAINT),
        Case(["Tie"], words(spec, TIES if axis == "token" else [127] * 4 + TIES[1:5])),
        Case(["Zero"], words(spec, [0, -0.0, 0, 0, 1, -1, 0, -0.0])),
        Case(["Tiny"], words(spec, [2.0**-20, 2.0**-24, 0, -(2.0**-21)] * 2)),
    ]
    peak = [top - 1, sign | (top - 1), top - 2, top // 2]
    if kind == "f16" and dtype is not DType.F16:
        cases.append(Case(["ScaleOverflow"], pattern(spec, peak * 2)))
        cases.append(Case(["Largest"], words(spec, [8e6, -8.3e6, 1e6, 3] * 2)))
    else:
        cases.append(Case(["Largest"], pattern(spec, peak * 2)))
    flags = ["Subnormal"] if dtype is DType.F16 else ["Subnormal", "SubnormalScale"]
    cases.append(Case(flags, pattern(spec, [1, 2, sign | 3, 100, 0, 127, 77, 190])))
    if kind == "f16" or dtype is DType.F16:
        cases.append(Case(["SubnormalScale"], words(spec, [1e-3, 5e-4, 0, -1e-6] * 2)))
    zero = bytes(4 if kind == "f32" else 2)
    cases += [
        Case(["ZeroScale"], change=replaced("scales", 0, zero)),
        *not_finite(spec, 5),
        *scaled_cases.scale_damage(MOST, dtype, kind, center=False),
        NO_CODE,
        *misfits(["scales", "codes"]),
    ]
    return Group({"axis": axis, "scale": kind}, spec, cases)


def _centred(dtype: DType, axis: str, kind: str) -> Group:
    spec = PageSpec(1, 3, 4, dtype)
    sign, half, wide = 1 << (8 * dtype.size - 1), kind == "f16", dtype is not DType.F16
    cases = [
        Case(["Paint", "Centred"], PAINT),
        Case(["Centred"], words(spec, scaled_cases.OFFSET)),
        Case(["Centred", "Zero"], words(spec, [-0.0, 0, 1, -1] * 3)),
        Case(["Centred", "Subnormal"], pattern(spec, [1, 2, sign | 3, 100, 0, 127] * 2)),
    ]
    flag = "ScaleOverflow" if half and wide else "Largest"
    cases.append(Case(["Uncentred" if wide else "Centred", flag], scaled_cases.ends(spec)))
    if wide and not half:
        cases += scaled_cases.far(spec)
    cases += bad_means(dtype)
    names = ["means", "centred", "scales", "codes"]
    if axis == "channel":
        names.remove("centred")
    else:
        # Any choice is possible, whatever an encoder would choose.
        cases += [Case(["Choice"], change=replaced("centred", 1, bytes([at]))) for at in range(4)]
        cases.append(Case(["Choice"], change=replaced("centred", 2, b"\xff")))
    cases += not_finite(spec, 5)
    cases += scaled_cases.scale_damage(MOST, dtype, kind, center=True)
    cases += [NO_CODE, *misfits(names)]
    return Group({"axis": axis, "center": True, "scale": kind}, spec, cases)


def _shapes() -> Iterator[Group]:
    for heads, tokens, channels in ((1, 1, 1), (2, 1, 3), (1, 5, 3), (1, 1, 33)):
        for axis, center in (("token", True), ("channel", True), ("channel", False)):
            spec = PageSpec(heads, tokens, channels, DType.F16)
            flags = ["Shape", "Paint", *(["Centred"] if center else [])]
            params = {"axis": axis, "center": center, "scale": "f16"}
            yield Group(params, spec, [Case(flags, PAINT)])
    spec = PageSpec(1, 1, 3, DType.F32)
    numbers = words(spec, [1 / 3, -1e10, 1e-10])
    yield Group({"center": True}, spec, [Case(["Shape", "Centred"], numbers)])
    spec = PageSpec(2, 2, 2, DType.F32)
    numbers = words(spec, [2.0**126, 5.5, 4.5, 3, 2.0**100, 5.5, 4.5, 3])
    yield Group({"center": True}, spec, [Case(["Centred", "Uncentred"], numbers)])


def _extremes() -> Iterator[Group]:
    """A token far from the others, and a row with a norm that no half holds."""
    spec = PageSpec(1, 4, 4, DType.F16)
    numbers = words(spec, scaled_cases.EXTREME)
    for axis, center in (("token", False), ("token", True), ("channel", False)):
        flags = ["Centred", "Pulled"] if center else ["Extreme"]
        params = {"axis": axis, "center": center}
        yield Group(params, spec, [Case(flags, numbers)])
    spec = PageSpec(1, 1, 128, DType.F16)
    yield Group({"scale": "f16"}, spec, [Case(["Norm"], words(spec, np.full(128, 6000)))])

"""int8: rounding, scales at both ends of every format, and damage."""

from __future__ import annotations

import struct
from typing import Any

from codec_vectors.recipe import (
    PAINT,
    SIZE_NOTES,
    Case,
    Group,
    misfits,
    pattern,
    replaced,
    words,
)

from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Tie": "x / scale lies half way between two codes: the even one is taken",
    "Zero": "a zero row has scale 0 and codes 0; minus zero comes back as plus zero",
    "Tiny": "the reciprocal of the scale times 2**112 would overflow float32",
    "SubnormalScale": "max / 127 is subnormal: the scale is rounded up, or codes would pass 127",
    "Subnormal": "the page holds subnormal numbers",
    "Largest": "127 · scale rounds beyond the dtype: the largest finite number is restored",
    "ScaleOverflow": "max / 127 is beyond the largest finite half",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Code": "the code -128 is never written",
    "Scale": "a scale that is negative, not finite, or beyond max / 127 of the largest number",
    "Convert": "decoded to another dtype: one rounding of code · scale",
    "Overflow": "decoded to a dtype that cannot hold the number",
}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"axis": "row"}, "/axis"),
    ({"axis": 0}, "/axis"),
    ({"axis": None}, "/axis"),
    ({"scale": "bf16"}, "/scale"),
    ({"scale": True}, "/scale"),
    ({"group": 32}, "/group"),
]
TIES = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -126.5, 126.5]


def _scale_damage(kind: str, most: int) -> list[Case]:
    form = "<I" if kind == "f32" else "<H"
    infinity = 0x7F800000 if kind == "f32" else 0x7C00
    sign = 0x80000000 if kind == "f32" else 0x8000
    bad = [most + 1, infinity, infinity + 1, sign, sign | 1, 2 * sign - 1]
    cases = [Case(["Scale"], change=replaced("scales", 0, struct.pack(form, at))) for at in bad]
    return [*cases, Case(["Code"], change=replaced("codes", 2, b"\x80"))]


def groups() -> list[Group]:
    found = []
    # The bits of RN32(largest / 127), and of its nearest half, 516.
    most = {DType.F16: 0x4400F1E4, DType.BF16: 0x7C00F1E4, DType.F32: 0x7C010204}
    for dtype in DType:
        spec = PageSpec(1, 2, 4, dtype)
        infinity = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}[dtype]
        sign = 1 << (8 * dtype.size - 1)
        for axis in ("token", "channel"):
            for kind in ("f32", "f16"):
                cases = [
                    Case(["Paint"], PAINT),
                    Case(["Tie"], words(spec, TIES if axis == "token" else [127] * 4 + TIES[1:5])),
                    Case(["Zero"], words(spec, [0, -0.0, 0, 0, 1, -1, 0, -0.0])),
                    Case(["Tiny"], words(spec, [2.0**-20, 2.0**-24, 0, -(2.0**-21)] * 2)),
                ]
                half = kind == "f16" or dtype is DType.F16
                peak = [infinity - 1, sign | (infinity - 1), infinity - 2, infinity // 2]
                if kind == "f16" and dtype is not DType.F16:
                    cases.append(Case(["ScaleOverflow"], pattern(spec, peak * 2)))
                    cases.append(Case(["Largest"], words(spec, [8e6, -8.3e6, 1e6, 3] * 2)))
                else:
                    cases.append(Case(["Largest"], pattern(spec, peak * 2)))
                flags = ["Subnormal"] if dtype is DType.F16 else ["Subnormal", "SubnormalScale"]
                cases.append(Case(flags, pattern(spec, [1, 2, sign | 3, 100, 0, 127, 77, 190])))
                if half:
                    cases.append(Case(["SubnormalScale"], words(spec, [1e-3, 5e-4, 0, -1e-6] * 2)))
                for word in (infinity, sign | infinity, infinity + 1, sign - 1):
                    place = [0] * 5 + [word, 0, infinity]
                    cases.append(Case(["NonFinite"], pattern(spec, place)))
                limit = most[dtype] if kind == "f32" else None
                if kind == "f16":
                    limit = 0x6008 if dtype is DType.F16 else 0x7BFF
                cases += _scale_damage(kind, limit or 0)
                cases += misfits(["scales", "codes"])
                found.append(Group({"axis": axis, "scale": kind}, spec, cases))
    single = PageSpec(1, 1, 4, DType.F32)
    numbers = words(single, [1.0, 0.3, -0.7, 1e-3])
    small = words(single, [2e-5, 3e-6, -7e-6, 1e-7])
    found.append(
        Group(
            {"axis": "token", "scale": "f32"},
            single,
            [
                Case(["Convert"], numbers, target=DType.F16),
                Case(["Convert"], numbers, target=DType.BF16),
                Case(["Convert", "Subnormal"], small, target=DType.F16),
                Case(["Overflow"], words(single, [65520.0, 0, 0, 0]), target=DType.F16),
                Case(["Overflow"], words(single, [1e30, 0, 0, 0]), target=DType.F16),
            ],
        )
    )
    return found

"""lossless: references, escapes, odd channels, short pages and damage."""

from __future__ import annotations

from typing import Any

from codec_vectors.recipe import (
    PAINT,
    SIZE_NOTES,
    Case,
    Group,
    PackedPlanes,
    misfits,
    pattern,
    words,
)

from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Short": "fewer than 24 tokens: one reference per head",
    "Long": "24 tokens: one reference per head and channel",
    "Sampled": "more than 128 tokens: references are made of every second one",
    "Nan": "infinities and NaN payloads come back bit for bit",
    "Escape": "exponents out of reach of the reference, below and above",
    "Clip": "a mean exponent outside 64 to 191",
    "Tie": "a mean of just one half is rounded up; as many plus as minus signs count as plus",
    "Spare": "the half byte after an odd last channel must be zero",
}
REFUSED: list[tuple[dict[str, Any], str]] = [({"axis": "channel"}, "/axis"), ({"x": None}, "/x")]


def _spare(plane: str) -> Any:
    def change(planes: PackedPlanes) -> PackedPlanes:
        old = planes[plane]
        return {**planes, plane: old[:-1] + bytes([old[-1] | 0x80])}

    return change


def groups() -> list[Group]:
    found = []
    for dtype in DType:
        short, single = PageSpec(2, 3, 5, dtype), PageSpec(1, 1, 1, dtype)
        top = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}[dtype]
        sign = 1 << (8 * dtype.size - 1)
        corners = [0, sign, 1, sign | 1, top - 1, sign | (top - 1), top, sign | top]
        corners += [top + 1, sign | (top + 1), sign - 1, 2 * sign - 1, 2, 3, top // 2]
        names = ["reference", "high", "low"]
        if dtype is not DType.F16:
            names = ["reference", "exponents", "escapes", "mantissa0"]
        spares = [] if dtype is DType.F16 else [_spare("exponents"), _spare("escapes")]
        found += [
            Group(
                {},
                short,
                [
                    Case(["Short", "Paint"], PAINT),
                    Case(["Short", "Nan"], pattern(short, corners * 2)),
                    Case(["Short", "Escape"], words(short, [1, 2.0**-13, 16, 0, -1] * 6)),
                    *(Case(["Spare"], change=spare) for spare in spares),
                    *misfits(names),
                ],
            ),
            Group({}, single, [Case(["Short"], words(single, [-1.5]))]),
            Group({}, PageSpec(1, 24, 3, dtype), [Case(["Long", "Paint"], PAINT)]),
        ]
        tie = PageSpec(1, 24, 2, dtype)
        found.append(Group({}, tie, [Case(["Long", "Tie"], words(tie, [1, -2, -2, 4] * 12))]))
    sampled = PageSpec(1, 130, 1, DType.BF16)
    found.append(
        Group({}, sampled, [Case(["Sampled", "Long"], words(sampled, [1.0, 1024.0] * 65))])
    )
    clipped = PageSpec(2, 2, 2, DType.F32)
    tiny = [2.0**-100, 2.0**-120, -(2.0**-126), 0, 2.0**100, -(2.0**120), 2.0**127, 2.0**110]
    found.append(Group({}, clipped, [Case(["Short", "Clip"], words(clipped, tiny))]))
    return found

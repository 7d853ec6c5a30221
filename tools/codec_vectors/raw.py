"""raw: every kind of element, and conversions to other dtypes."""

from __future__ import annotations

from typing import Any

from codec_vectors.recipe import PAINT, SIZE_NOTES, Case, Group, misfits, pattern, words

from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Nan": "a NaN keeps its payload; converted, it keeps its sign and becomes quiet",
    "Overflow": "a finite number has no finite neighbour in the dtype asked for",
    "Convert": "conversion to another dtype rounds half to even",
    "Paint": "a page given by a rule",
}
REFUSED: list[tuple[dict[str, Any], str]] = [({"level": 3}, "/level"), ({"": 1}, "/")]


def groups() -> list[Group]:
    half, brain, single = (PageSpec(1, 2, 4, dtype) for dtype in DType)
    nan16 = [0x0000, 0x8000, 0x7C00, 0xFC00, 0x7C01, 0xFE55, 0x0001, 0x7BFF]
    nan_brain = [0x0000, 0x8000, 0x7F80, 0xFF80, 0x7F81, 0xFFD5, 0x0001, 0x7F7F]
    nan32 = [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7F800001, 0xFFD55555, 1, 0x3F800000]
    ties = [1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 3 * 2**-25, -(2**-24), 65519, 0.1, -1 / 3]
    return [
        Group(
            {},
            half,
            [
                Case(["Nan"], pattern(half, nan16)),
                Case(["Nan", "Convert"], pattern(half, nan16), target=DType.F32),
                Case(["Nan", "Convert"], pattern(half, nan16), target=DType.BF16),
                *misfits(["bits"]),
            ],
        ),
        Group(
            {},
            brain,
            [
                Case(["Nan"], pattern(brain, nan_brain)),
                Case(["Nan", "Convert"], pattern(brain, nan_brain), target=DType.F32),
                Case(["Overflow"], pattern(brain, nan_brain), target=DType.F16),
                *misfits(["bits"]),
            ],
        ),
        Group(
            {},
            single,
            [
                Case(["Nan"], pattern(single, nan32)),
                Case(["Convert"], words(single, ties), target=DType.F16),
                Case(["Convert"], words(single, ties), target=DType.BF16),
                Case(["Overflow"], words(single, [65520.0] * 8), target=DType.F16),
                Case(["Overflow"], pattern(single, [0x7F7F8000] * 8), target=DType.BF16),
                *misfits(["bits"]),
            ],
        ),
        Group({}, PageSpec(2, 3, 5, DType.F32), [Case(["Paint"], PAINT)]),
    ]

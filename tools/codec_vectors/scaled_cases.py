"""scaled_cases: what the recipes of codecs with scales have in common.

`largest` is the number that a row's peak is divided by; `kind` is how scales are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from codec_vectors.recipe import Case, Group, pattern, replaced, words

from kvq_cli.numerics.bits import INFINITY, LARGEST
from kvq_cli.page import DType, PageSpec

# Four tokens of four channels: the second is far from the others, the third is zero.
EXTREME = (1, 0.5, -0.3, 0.007, 6000, -6000, 6000, -6000, 0, 0, 0, 0, -1, 0.02, 0, 2)
# Three tokens of four channels that a mean suits.
OFFSET = (100, -30, 0.5, 0, 101, -30, 0.25, 0, 99.5, -30.25, 0, 1e-3)


def ends(spec: PageSpec) -> Any:
    """Three tokens of the largest numbers, of both signs."""
    top, sign = INFINITY[spec.dtype], 1 << (8 * spec.dtype.size - 1)
    return pattern(spec, [top - 1, sign | (top - 1), top - 1, 0] * 2 + [sign | (top - 1)] * 4)


def far(spec: PageSpec) -> Iterator[Case]:
    """The largest power of two whose heads have means, and the first that has none."""
    for exponent, flag in ((125, "Centred"), (126, "Uncentred")):
        numbers = [2.0**exponent] * 4 + [2.0 ** (exponent - 1)] * 4 + [-(2.0**exponent)] * 4
        yield Case([flag], words(spec, numbers))


def scale_words(
    largest: float, dtype: DType, kind: str, *, center: bool
) -> tuple[str, int, int, int]:
    """A scale's layout, the bits of the largest that is written, of infinity and of minus zero."""
    reach = min(LARGEST[dtype] * (2 if center else 1), LARGEST[DType.F32])
    scale = np.float32(reach) / np.float32(largest)
    if kind == "f32":
        return "<I", int(scale.view(np.uint32)), 0x7F800000, 1 << 31
    most = int(scale.astype(np.float16).view(np.uint16)) if scale < 65520 else 0x7BFF
    return "<H", most, 0x7C00, 1 << 15


def scale_damage(largest: float, dtype: DType, kind: str, *, center: bool) -> Iterator[Case]:
    """The largest scale that an encoder could write, and scales that none does."""
    layout, most, top, sign = scale_words(largest, dtype, kind, center=center)
    yield Case(["Limit"], change=replaced("scales", 0, struct.pack(layout, most)))
    for word in (most + 1, top, top + 1, sign, sign | 1, 2 * sign - 1):
        yield Case(["Scale"], change=replaced("scales", 0, struct.pack(layout, word)))


def converted(
    plain: dict[str, Any], centred: dict[str, Any], *, least: float, beyond: float
) -> Iterator[Group]:
    """F32 pages to other dtypes; `beyond` is restored as a number that no half holds."""
    single = PageSpec(1, 1, 4, DType.F32)
    numbers = words(single, [1.0, 0.3, -0.7, 1e-3])
    small = words(single, [2e-5, 3e-6, -7e-6, least])
    yield Group(
        plain,
        single,
        [
            Case(["Convert"], numbers, target=DType.F16),
            Case(["Convert"], numbers, target=DType.BF16),
            Case(["Convert", "Subnormal"], small, target=DType.F16),
            Case(["Overflow"], words(single, [beyond, 0, 0, 0]), target=DType.F16),
            Case(["Overflow"], words(single, [1e30, 0, 0, 0]), target=DType.F16),
            Case(["Overflow"], pattern(single, [0x7F7FFFFF, 0, 0, 0]), target=DType.BF16),
        ],
    )
    double = PageSpec(1, 2, 2, DType.F32)
    numbers = words(double, [1000.1, 0.3, 999.9, -0.7])
    cases = [
        Case(["Convert", "Centred"], numbers, target=DType.F16),
        Case(["Convert", "Centred"], numbers, target=DType.BF16),
        Case(["Overflow"], words(double, [65504.0, 1.0, 65520.0, 3.0]), target=DType.F16),
    ]
    yield Group(centred, double, cases)

"""fp8_cases: pages and damaged planes for any 8-bit float.

Each is stated in terms of the format: `largest`, `least` (its smallest subnormal, which is the
spacing of subnormals) and `mantissa` bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from codec_vectors.recipe import Case, pattern, replaced, words

from kvq_cli.numerics import rows, scales
from kvq_cli.numerics.bits import INFINITY
from kvq_cli.numerics.fp8 import Float8
from kvq_cli.page import DType, PageSpec


def rounding(form: Float8, spec: PageSpec) -> Iterator[Case]:
    """Rows whose scale is 1."""
    top, unit, step = form.largest, form.least, 2.0**-form.mantissa
    ties = [1 + step / 2, 1 + 1.5 * step, -(2 + step)]
    small = [unit / 2, 1.5 * unit, -2.5 * unit]
    yield Case(["Tie", "Small"], words(spec, [top, *ties, -top, *small]))
    exact = words(spec, [top, ties[0], ties[0], ties[1], -top, small[0], small[0], small[2]])
    off = np.array([0, 1, -1, -1, 0, 1, -1, 1]).reshape(spec.shape)
    yield Case(["Near"], (exact.astype(np.int64) + off).astype(exact.dtype))
    normal = unit * 2**form.mantissa
    below = [normal - unit / 2, normal - unit * 0.75, normal - unit / 4]
    above = [-normal, unit - normal, -(normal + unit / 2)]
    yield Case(["Small"], words(spec, [top, *below, -top, *above]))
    yield Case(["Underflow"], words(spec, [top, -unit / 4, unit / 8, -unit / 2] * 2))


def peaks_above(form: Float8, spec: PageSpec, kind: scales.ScaleType) -> Iterator[Case]:
    """Rows with the first two peaks from 8 on that pass the largest code."""
    start = words(PageSpec(1, 1, 1, spec.dtype), [8.0])[0, 0, 0]
    bits = np.arange(start, start + 2000, dtype=spec.dtype.bits)
    peaks = rows.values(bits, spec.dtype)
    divisors = scales.wide(scales.stored(peaks, form.largest, kind, ""))
    found = bits[peaks * (np.float32(1) / divisors) > form.largest][:2].tolist()
    sign = 1 << (8 * spec.dtype.size - 1)
    numbers = [word for peak in found for word in (peak, peak | sign, peak - 9, 0)]
    yield Case(["Above"], pattern(spec, numbers))


def tiny(form: Float8, spec: PageSpec, kind: scales.ScaleType) -> Iterator[Case]:
    """Rows with scales near the bottom of their dtype."""
    sign = 1 << (8 * spec.dtype.size - 1)
    yield Case(["Tiny"], words(spec, [2.0**-20, 2.0**-24, 0, -(2.0**-21)] * 2))
    subnormal = pattern(spec, [1, 2, sign | 3, 100, 0, 127, 77, 190])
    if spec.dtype is DType.F16 and kind == "f32":
        yield Case(["Subnormal"], subnormal)
        return
    yield Case(["Subnormal", "SubnormalScale"], subnormal)
    # Just below the smallest normal scale, and far below it.
    peak = form.largest * 2.0 ** (-14 if kind == "f16" else -126)
    numbers = [peak * 0.99, -peak / 3, 0, peak / 99, peak / 2048, -peak / 4096, 0, 0]
    yield Case(["SubnormalScale"], words(spec, numbers))


def large(form: Float8, spec: PageSpec, kind: scales.ScaleType) -> Iterator[Case]:
    """Rows near the end of the dtype, and near the largest scale that f16 holds."""
    top, sign = INFINITY[spec.dtype], 1 << (8 * spec.dtype.size - 1)
    ends = pattern(spec, [top - 1, sign | (top - 1), top - 2, top // 2] * 2)
    if spec.dtype is DType.F16 or kind == "f32":
        yield Case(["Largest"], ends)
        return
    yield Case(["ScaleOverflow"], ends)
    yield Case(["Limit"], words(spec, [form.largest * at for at in (65000, -64000, 3, 1)] * 2))
    if spec.dtype is DType.F32:
        end = np.float32(65520 * form.largest)
        under = np.nextafter(end, np.float32(0))
        yield Case(["ScaleOverflow"], words(spec, [end] + [1] * 7))
        yield Case(["Limit"], words(spec, [under, -under] + [1] * 6))


def code_damage(form: Float8, at: int) -> Iterator[Case]:
    """The first and the last code that is not finite, of either sign."""
    first = form.largest_code + 1
    for code in sorted({first, 0x7F, first | 0x80, 0xFF}):
        yield Case(["Code"], change=replaced("codes", at, bytes([code])))

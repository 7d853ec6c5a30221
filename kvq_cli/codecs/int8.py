"""int8: symmetric 8-bit codes, one scale per row.

Spec: formats/codecs/int8.md, revision 1.

A row is one token's D channels (axis "token") or one channel over the page's T tokens (axis
"channel") of one head. All arithmetic is float32, each step rounded half to even:

    scale = max|x| / 127, in float32, then in the scale's dtype
    code  = round(x · (1 / scale)), from -127 to 127
    x'    = code · scale, rounded to the source dtype

Scales below the smallest normal number of their dtype are rounded up, so that no code
passes 127. Zero rows have scale 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, refuse_non_finite
from kvq_cli.errors import CodecError
from kvq_cli.numerics import bits as number
from kvq_cli.numerics import rows
from kvq_cli.numerics.exact import require_subnormals
from kvq_cli.numerics.rescale import Rescale
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part, tiles
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes

MAX_CODE: Final = 127  # -128 stays unused: the code range is symmetric
# Adding 1.5 · 2**23 rounds a float32 below 2**22 to an integer, half to even, and leaves it,
# in two's complement, in the low bits.
ROUNDER: Final = np.float32(12582912)
_LIFT: Final = np.float32(2.0**64)  # brings rows with a subnormal scale into the normal range
_ONE: Final = np.float32(1)
_ZERO: Final = np.float32(0)
_NORMAL: Final = np.float32(2.0**-126)


@dataclass(frozen=True, slots=True)
class Int8(Codec):
    """What a row is, and how its scale is stored."""

    name: ClassVar[str] = "int8"
    revision: ClassVar[int] = 1
    lossless: ClassVar[bool] = False

    axis: Literal["token", "channel"] = "token"
    scale: Literal["f32", "f16"] = "f32"

    def layout(self, spec: PageSpec) -> Layout:
        heads, tokens, channels = spec.shape
        scale = "<f4" if self.scale == "f32" else "<f2"
        if self.axis == "token":
            scales = Plane("scales", scale, (heads, tokens, 1), "HT1")
        else:
            scales = Plane("scales", scale, (heads, 1, channels), "H1D")
        return (scales, Plane("codes", "|i1", spec.shape, "HTD"))

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        dtype = page.spec.dtype
        magnitudes = rows.peaks(page.bits, dtype, 2 if self.axis == "token" else 1, scratch)
        refuse_non_finite(self.name, page, magnitudes)
        peaks = rows.values(magnitudes, dtype)
        scales = _scales(peaks) if self.scale == "f32" else _half_scales(peaks, scratch)
        lift, factor = _factors(_wide(scales), dtype)
        codes = scratch.take("planes.codes", page.spec.shape, np.int8)
        for tile in tiles(page.spec.shape):
            block = page.bits[tile]
            values = scratch.take("tile", block.shape, np.float32)
            source = number.spread(block, dtype, values)
            if lift is not None:
                source = np.multiply(source, part(lift, tile), out=values)
            np.multiply(source, part(factor, tile), out=values)
            np.add(values, ROUNDER, out=values)
            np.copyto(codes[tile], values.view(np.int32), casting="unsafe")
        return {"scales": scales, "codes": codes}

    def check(self, planes: Planes, spec: PageSpec) -> None:
        codes, scales = planes["codes"], planes["scales"]
        words = scales.view(np.uint32 if self.scale == "f32" else np.uint16)
        # Signs, infinities and NaN all lie above the largest scale.
        if int(words.max()) > _most(self.scale, spec.dtype):
            raise CodecError("E502", f"int8: a scale of bits 0x{int(words.max()):x} is impossible")
        if int(codes.min()) < -MAX_CODE:
            raise CodecError("E502", "int8: a code of -128, codes go from -127 to 127")

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        scales = _wide(planes["scales"])
        rescale = Rescale(spec.dtype, into.spec.dtype, MAX_CODE, scratch)
        for tile in tiles(spec.shape):
            rescale(planes["codes"][tile], part(scales, tile), into.bits[tile])


@cache
def _most(scale: str, dtype: DType) -> int:
    """The bits of the largest scale that a page of this dtype can have."""
    if scale == "f32":
        peak = np.full((1, 1, 1), number.LARGEST[dtype], np.float32)
        return int(_scales(peak).view(np.uint32)[0, 0, 0])
    # For wide sources every finite half is a scale.
    return 0x7BFF if dtype is not DType.F16 else 0x6008  # 516


def _scales(peaks: NDArray[np.float32]) -> NDArray[np.float32]:
    scales = peaks / np.float32(MAX_CODE)
    if scales.min() < _NORMAL:
        tiny = (scales < _NORMAL) & (peaks > 0)
        # Counted in units of 2**-149 a subnormal's magnitude is its bit pattern.
        units = np.ceil(peaks[tiny] * _LIFT / np.float32(MAX_CODE) * np.float32(2.0**85))
        scales.view(np.uint32)[tiny] = units.astype(np.uint32)
    return scales


def _half_scales(peaks: NDArray[np.float32], scratch: Scratch) -> NDArray[np.float16]:
    scales = peaks / np.float32(MAX_CODE)
    if float(scales.max(initial=0)) >= number.OVERFLOW[DType.F16]:
        raise CodecError(
            "E501",
            f"int8: a row reaches {float(peaks.max()):.6g}; scales in f16 end at 127 * 65504",
        )
    halves = np.empty(peaks.shape, np.uint16)
    if scales.min() >= np.float32(2.0**-14):
        number.narrow(scales, DType.F16, halves, scratch, floor=2.0**-14)
        return halves.view(np.float16)
    tiny = (scales < np.float32(2.0**-14)) & (peaks > 0)
    # As above, in units of 2**-24; a scale too small for float32 still counts one.
    units = np.maximum(np.ceil(scales[tiny] * np.float32(2.0**24)), _ONE)
    number.narrow(scales, DType.F16, halves, scratch)
    halves[tiny] = units.astype(np.uint16)
    return halves.view(np.float16)


def _wide(scales: NDArray[Any]) -> NDArray[np.float32]:
    if scales.dtype == np.float32:
        return scales
    wide = np.empty(scales.shape, np.float32)
    number.widen(scales.view(np.uint16), DType.F16, wide)
    return wide


def _factors(
    scales: NDArray[np.float32], dtype: DType
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
    """What spread values are multiplied by: powers of two first, where one factor overflows."""
    lift = None
    if scales.min() >= _NORMAL:
        factor = _ONE / scales
    else:
        tiny = (scales < _NORMAL) & (scales > 0)
        lift = np.where(tiny, _LIFT, _ONE)
        factor = np.where(scales > 0, _ONE / np.where(scales > 0, scales * lift, _ONE), _ZERO)
    unit = number.UNIT[dtype]
    if unit == 1:
        return lift, factor
    # Half-precision sources have no scale that needs a lift but for their UNIT.
    if float(factor.max()) < 2.0**15:
        return None, factor * unit
    return np.full((1, 1, 1), unit), factor

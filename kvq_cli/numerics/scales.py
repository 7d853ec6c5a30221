"""scales: what groups are divided by, as stored, and the factors that divide.

Spec: formats/codecs/README.md, section "Scales".

    q       peak / largest, in float32
    scale   q rounded to the scale's dtype; up where it is below the smallest normal number
            (times `parts` in float32: a scale can be cut into so many without rounding)
    factor  1 / scale, in float32; 0 where the scale is 0

A subnormal scale that was rounded down could be too small by half, and codes would pass the
largest. An f16 scale that would pass 65504 is refused.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics import bits as number
from kvq_cli.numerics.groups import Groups
from kvq_cli.page import DType
from kvq_cli.record import record

ScaleType: TypeAlias = Literal["f32", "f16"]

PLANE: Final = {"f32": "<f4", "f16": "<f2"}
_LIFT: Final = np.float32(2.0**64)  # brings groups with a subnormal scale into the normal range
_ONE: Final = np.float32(1)
_ZERO: Final = np.float32(0)
_NORMAL: Final = np.float32(2.0**-126)
LEAST: Final = np.float32(2.0**-149)  # the least subnormal number


def stored(
    peaks: NDArray[np.float32], largest: float, kind: ScaleType, codec: str, *, parts: int = 1
) -> NDArray[Any]:
    """The scales of groups that reach `peaks`, so that no code passes `largest`."""
    scales = peaks / np.float32(largest)
    if kind == "f32":
        return _whole(scales, peaks, largest, parts)
    return _half(scales, peaks, codec)


def _whole(
    scales: NDArray[np.float32], peaks: NDArray[np.float32], largest: float, parts: int
) -> NDArray[np.float32]:
    if scales.min() < _NORMAL * parts:
        tiny = (scales < _NORMAL * parts) & (peaks > 0)
        lifted = peaks[tiny] * _LIFT / np.float32(largest)
        scales[tiny] = np.ceil(lifted * np.float32(2.0**85 / parts)) * (LEAST * parts)
    return scales


def _half(
    scales: NDArray[np.float32], peaks: NDArray[np.float32], codec: str
) -> NDArray[np.float16]:
    if float(scales.max(initial=0)) >= number.OVERFLOW[DType.F16]:
        raise CodecError(
            "E501",
            f"{codec}: a scale of {float(scales.max()):.6g} is needed, f16 ends at 65504",
        )
    halves = scales.astype(np.float16)
    normal = np.float32(number.SMALLEST_NORMAL[DType.F16])
    if scales.min() < normal:
        tiny = (scales < normal) & (peaks > 0)
        # As above, in units of 2**-24; a scale too small for float32 still counts one.
        units = np.ceil(scales[tiny] * np.float32(2.0**24))
        halves.view(np.uint16)[tiny] = np.where(units < 1, _ONE, units).astype(np.uint16)
    return halves


def wide(scales: NDArray[Any]) -> NDArray[np.float32]:
    """Stored scales as float32."""
    return scales.astype(np.float32, copy=False)


@record
class Divisor:
    """x to x · (1 / scale) in float32, or to 0 where the scale is 0."""

    factor: NDArray[np.float32]
    lift: NDArray[np.float32] | None  # powers of two that come first: a factor would overflow

    @classmethod
    def by(cls, scales: NDArray[np.float32]) -> Divisor:
        magnitudes = np.abs(scales)
        if magnitudes.min() >= _NORMAL:
            return cls(_ONE / scales, None)
        tiny = (magnitudes < _NORMAL) & (magnitudes > 0)
        lift = np.where(tiny, _LIFT, _ONE)
        held = np.where(magnitudes > 0, scales * lift, _ONE)
        return cls(np.where(magnitudes > 0, _ONE / held, _ZERO), lift if tiny.any() else None)

    def groups(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of numbers that there are one of per group."""
        lifted = values if self.lift is None else values * self.lift
        return lifted * self.factor

    def elements(self, values: NDArray[np.float32], groups: Groups, unit: np.float32) -> None:
        """Of elements / unit, in place."""
        if self.lift is not None:
            groups.apply(np.multiply, values, self.lift)
        factor = self.factor
        if unit != 1 and float(np.abs(factor).max()) < 2.0**15:
            factor = factor * unit
        elif unit != 1:
            np.multiply(values, unit, out=values)
        groups.apply(np.multiply, values, factor)


@cache
def largest_bits(peak: float, largest: float, kind: ScaleType) -> int:
    """The bits of the largest scale that groups reaching no further than `peak` can have."""
    if kind == "f16" and peak / largest >= number.OVERFLOW[DType.F16]:
        return 0x7BFF  # every finite half
    scale = stored(np.full((1, 1, 1), peak, np.float32), largest, kind, "")
    return int(bits_of(scale)[0, 0, 0])


def bits_of(scales: NDArray[Any]) -> NDArray[Any]:
    """Stored scales as unsigned integers."""
    return scales.view(np.uint32 if scales.dtype == np.float32 else np.uint16)


def check(words: NDArray[Any], most: int, codec: str) -> None:
    """CodecError E502 where the bits of a scale are above `most`."""
    # Infinities, NaN and signs lie above every scale.
    if (found := int(words.max(initial=0))) > most:
        raise CodecError("E502", f"{codec}: a scale of bits 0x{found:x} is impossible")

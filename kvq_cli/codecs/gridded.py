"""gridded: what the codecs of few bits have in common: a grid per group, codes packed.

Spec: formats/codecs/README.md, sections "Grids", "Packed codes" and "Restoring".

    with zeros       x' = (16 · code + zero) · (scale / 16)      scale = (max - min) / (2**bits - 1)
    without          x' = (code - 2**(bits - 1)) · scale         scale = -extreme / 2**(bits - 1)

A zero counts sixteenths of a scale, so that everything up to the one product is an integer.
Without zeros the scale has a sign: the element of largest magnitude gets code 0, and no code
is left unused.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, arrays_for, refuse_non_finite
from kvq_cli.codecs.centred import check_centred, furthest, means_of, planes_of, source
from kvq_cli.errors import CodecError
from kvq_cli.numerics import rows, scales
from kvq_cli.numerics.centre import ROUNDER, Block
from kvq_cli.numerics.exact import require_subnormals
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.packing import (
    check_padding,
    pack_codes,
    row_bytes,
    take_codes,
    unpack_codes,
)
from kvq_cli.numerics.restore import Restore
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part, tiles
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record

PARTS: Final = 16  # of a scale, that zeros count
# Magnitudes are at most so many scales, which keeps 16 · code + zero in 16 bits. Half-precision
# numbers of a magnitude lie 1024 to 2048 times closer together, so little is lost by it.
REACH: Final = 1792
MAX_ZERO: Final = 28687  # 16 · REACH, and half a unit of rounding of an f16 scale


@record
class Gridded(Codec):
    """How scales are stored."""

    lossless: ClassVar[bool] = False

    scale: scales.ScaleType = "f16"

    @property
    @abstractmethod
    def groups(self) -> Groups:
        """What shares a grid."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Bits of a code."""

    @property
    @abstractmethod
    def zeroed(self) -> bool:
        """Whether grids have zeros."""

    @property
    def centred(self) -> bool:
        """Whether means are taken off first."""
        return False

    def layout(self, spec: PageSpec) -> Layout:
        shape = self.groups.shape(spec.shape)
        axes = "HTC" if self.groups.axis == "token" else "HGD"
        packed = (spec.heads, spec.tokens, row_bytes(spec.channels, self.width))
        zeros = (Plane("zeros", "<i2", shape, axes),) if self.zeroed else ()
        return (
            *(planes_of(spec, self.groups.axis) if self.centred else ()),
            Plane("scales", scales.PLANE[self.scale], shape, axes),
            *zeros,
            Plane("codes", "|u1", packed, "HTB"),
        )

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        planes = arrays_for(self.layout(page.spec), scratch)
        whole = self.groups.axis == "channel"
        for block in source(self.name, page, planes, scratch, whole=whole):
            mine = {name: part(planes[name], block.tile) for name in planes}
            if self.zeroed:
                self._place_with_zeros(page, block, mine, scratch)
            else:
                self._place(page, block, mine, scratch)
            codes = take_codes(block.values.shape, scratch)
            held = codes[..., : page.spec.channels]
            np.copyto(held, block.values.view(np.int32), casting="unsafe")
            if not self.zeroed:
                # The opposite of the extreme has no code.
                np.subtract(codes, codes >> self.width, out=codes)
            pack_codes(codes, self.width, mine["codes"], scratch)
        return planes

    def _place_with_zeros(
        self, page: Page, block: Block, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> None:
        """Scales and zeros; the values become codes, in their low bits."""
        least, greatest = rows.ranges(block.bits, block.dtype, self.groups, scratch)
        for found in (least, greatest):
            refuse_non_finite(self.name, page, found, block.dtype)
        low, high = rows.values(least, block.dtype), rows.values(greatest, block.dtype)
        half = high * np.float32(0.5) - low * np.float32(0.5)
        furthest = np.maximum(np.abs(low), np.abs(high))
        reach = furthest * np.float32(self._steps / REACH)
        # A product that was rounded down to a subnormal would let zeros pass their end.
        peaks = np.maximum(half, reach + np.minimum(furthest, scales.LEAST))
        stored = scales.stored(peaks, self._steps, self.scale, self.name, parts=PARTS)
        divisor = scales.Divisor.by(scales.wide(stored))
        zeros = np.rint(divisor.groups(low) * np.float32(PARTS))
        np.copyto(planes["scales"], stored)
        np.copyto(planes["zeros"], zeros, casting="unsafe")
        divisor.elements(block.values, self.groups, block.unit)
        self.groups.apply(np.subtract, block.values, zeros * np.float32(1 / PARTS))
        np.add(block.values, ROUNDER, out=block.values)

    def _place(
        self, page: Page, block: Block, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> None:
        """Scales; the values become codes, in their low bits."""
        found = rows.signed_peaks(block.bits, block.dtype, self.groups, scratch)
        refuse_non_finite(self.name, page, found, block.dtype)
        extremes = rows.values(found, block.dtype)
        stored = scales.stored(np.abs(extremes), self._middle, self.scale, self.name)
        np.negative(stored, out=stored, where=extremes > 0)
        np.copyto(planes["scales"], stored)
        divisor = scales.Divisor.by(scales.wide(stored))
        divisor.elements(block.values, self.groups, block.unit)
        np.add(block.values, ROUNDER + np.float32(self._middle), out=block.values)

    def check(self, planes: Planes, spec: PageSpec) -> None:
        reach = furthest(spec.dtype, center=self.centred)
        codec, words = self.name, scales.bits_of(planes["scales"])
        if self.zeroed:
            largest = scales.largest_bits(reach, self._steps, self.scale)
            if _furthest_zero(planes) > MAX_ZERO:
                raise CodecError("E502", f"{codec}: a zero is beyond {MAX_ZERO}")
        else:
            largest = scales.largest_bits(reach, self._middle, self.scale)
            sign = 1 << (8 * words.dtype.itemsize - 1)
            if bool((words == sign).any()):
                raise CodecError("E502", f"{codec}: a scale of minus zero")
            words = words & (sign - 1)
        scales.check(words, largest, codec)
        check_centred(planes, spec, codec)
        check_padding(planes["codes"], self.width, spec.channels, codec)

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        factors = scales.wide(planes["scales"])
        if self.zeroed:
            factors = factors * np.float32(1 / PARTS)
        restore = Restore(
            spec.dtype,
            into.spec.dtype,
            self.groups,
            1,
            self._most(planes),
            means_of(planes, spec),
            scratch,
        )
        for tile in tiles(spec.shape, whole=self.groups.axis == "channel"):
            packed = part(planes["codes"], tile)
            codes = unpack_codes(packed, self.width, spec.channels, scratch)
            values = scratch.take("block", codes.shape, np.float32)
            numbers = scratch.take("gridded", codes.shape, np.int16)
            np.copyto(numbers, codes)
            if self.zeroed:
                np.multiply(numbers, PARTS, out=numbers)
                self.groups.apply(np.add, numbers, part(planes["zeros"], tile))
            else:
                np.subtract(numbers, self._middle, out=numbers)
            np.copyto(values, numbers)
            signs = numbers if self.zeroed else None
            restore(values, part(factors, tile), into.bits[tile], tile, signs=signs)

    @property
    def _steps(self) -> float:
        """From the middle of a grid to its end."""
        return ((1 << self.width) - 1) / 2

    @property
    def _middle(self) -> int:
        """The code of zero, where grids have no zeros of their own."""
        return 1 << (self.width - 1)

    def _most(self, planes: Planes) -> int:
        """The largest magnitude of what scales are multiplied by."""
        if not self.zeroed:
            return self._middle
        return _furthest_zero(planes) + PARTS * ((1 << self.width) - 1)


def _furthest_zero(planes: Planes) -> int:
    zeros = planes["zeros"]
    return max(int(zeros.max()), -int(zeros.min()))

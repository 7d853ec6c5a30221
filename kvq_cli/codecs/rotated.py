"""rotated: what the codecs of rotated unit vectors have in common.

Spec: formats/codecs/README.md, sections "Rotations", "Unit rows" and "Restoring".

    q    integers, x · 2**(digits - E) rounded, 2**E the next power above the row's magnitudes
    z    coordinates of the rotated row over its length, times sqrt(order), in units of 2**-10
    x'   (rotated back vector of levels) · norm · constant + mean

A codec says what it makes of z, and which vector of levels stands for it.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, arrays_for
from kvq_cli.codecs.centred import (
    TOKENS,
    check_centred,
    means_of,
    planes_of,
    reached,
    source,
)
from kvq_cli.errors import CodecError
from kvq_cli.numerics import scales
from kvq_cli.numerics.bits import OVERFLOW
from kvq_cli.numerics.centre import Block
from kvq_cli.numerics.exact import require_subnormals
from kvq_cli.numerics.levels import ONE
from kvq_cli.numerics.paley import least_order
from kvq_cli.numerics.restore import Restore
from kvq_cli.numerics.rotation import LARGEST, Kind, Rotation, rotation, squares
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part, tiles
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record

_HIGHEST: Final = 127  # largest exponent of a float32 factor
_LIFT: Final = 64


@record
class UnitRows:
    """The rows of a tile, turned: integers over 1024, and what they were as multiples of these."""

    z: NDArray[np.int16]  # (rows, order)
    squares: NDArray[np.float64]  # of the integers before they were turned
    exponents: NDArray[np.int32]  # of two, that bring these integers back to what they stand for

    def lengths(self, factor: NDArray[np.float64] | float = 1.0) -> NDArray[np.float64]:
        """sqrt(squares · factor), as the rows were."""
        return np.ldexp(np.sqrt(self.squares * factor), self.exponents)


@record
class Rotated(Codec):
    """How rows are turned, and how their lengths are stored."""

    lossless: ClassVar[bool] = False

    rotation: Kind = "hadamard"
    seed: int = 0
    norm: scales.ScaleType = "f16"
    center: bool = False

    @property
    @abstractmethod
    def unit(self) -> float:
        """What `vectors` gives for 1 in a row of length sqrt(order)."""

    @abstractmethod
    def code_planes(self, rows: tuple[int, int], order: int) -> Layout:
        """The planes besides means, choices and norms of so many heads and tokens."""

    @abstractmethod
    def place(
        self, unit: UnitRows, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> NDArray[np.float64]:
        """Fill planes, as (rows, …), from turned rows; the norms to store."""

    @abstractmethod
    def vectors(self, planes: Planes, order: int, scratch: Scratch) -> NDArray[np.float32]:
        """Integers that stand for turned unit rows, (rows, order), alive in scratch."""

    @abstractmethod
    def peak(self, order: int, scratch: Scratch) -> float:
        """What no magnitude of theirs passes, whatever the planes."""

    @property
    def most_channels(self) -> int:
        """Of rows that can be rotated."""
        return LARGEST

    def order_for(self, channels: int) -> int:
        """The order that so many channels are rotated in, `most_channels` at most."""
        return least_order(channels)

    def check_codes(self, planes: Planes, order: int) -> None:
        """CodecError E502 where codes are such as no encoder writes; usually all are fine."""

    def layout(self, spec: PageSpec) -> Layout:
        heads, tokens = spec.heads, spec.tokens
        return (
            *(planes_of(spec, "token") if self.center else ()),
            Plane("norms", scales.PLANE[self.norm], (heads, tokens, 1), "HT1"),
            *self.code_planes((heads, tokens), self._order(spec)),
        )

    def check_spec(self, spec: PageSpec) -> None:
        if spec.channels > self.most_channels:
            found = f"{spec.channels} channels, at most {self.most_channels} can be rotated"
            raise CodecError("E501", f"{self.name}: {found}")

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        planes = arrays_for(self.layout(page.spec), scratch)
        turning = self._rotation(page.spec)
        for block in source(self.name, page, planes, scratch, whole=False):
            reach = reached(self.name, page, block, TOKENS, scratch)
            unit = unit_rows(block, reach, turning, scratch)
            mine = {name: _flat(part(planes[name], block.tile)) for name in _coded(planes)}
            norms = self._stored(self.place(unit, mine, scratch))
            np.copyto(part(planes["norms"], block.tile), norms.reshape(reach.shape))
        return planes

    def check(self, planes: Planes, spec: PageSpec) -> None:
        words = scales.bits_of(planes["norms"])
        scales.check(words, 0x7BFF if words.dtype == np.uint16 else 0x7F7FFFFF, self.name)
        check_centred(planes, spec, self.name)
        self.check_codes(planes, self._order(spec))

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        turning = self._rotation(spec)
        order = turning.order
        factors = scales.wide(planes["norms"]) * np.float32(turning.share / self.unit)
        restore = Restore(
            spec.dtype,
            into.spec.dtype,
            TOKENS,
            0,
            turning.gain * math.sqrt(order) * self.peak(order, scratch),
            means_of(planes, spec),
            scratch,
        )
        for tile in tiles((spec.heads, spec.tokens, order)):
            mine = {name: _flat(part(planes[name], tile)) for name in _coded(planes)}
            turned = turning.back(self.vectors(mine, order, scratch), scratch)
            out = into.bits[tile]
            values = turned.reshape(*out.shape[:2], order)
            if order != spec.channels:
                whole, values = values, scratch.take("block", out.shape, np.float32)
                np.copyto(values, whole[..., : spec.channels])
            restore(values, part(factors, tile), out, tile)

    def _order(self, spec: PageSpec) -> int:
        """Of pages that cannot be rotated too, which have a layout all the same."""
        if spec.channels > self.most_channels:
            return -(-spec.channels // 16) * 16
        return self.order_for(spec.channels)

    def _rotation(self, spec: PageSpec) -> Rotation:
        self.check_spec(spec)
        return rotation(self.rotation, self._order(spec), self.seed)

    def _stored(self, norms: NDArray[np.float64]) -> NDArray[Any]:
        """Norms in their dtype, by way of float32; CodecError where one is beyond it."""
        dtype = DType.F16 if self.norm == "f16" else DType.F32
        furthest = float(norms.max(initial=0))
        if furthest >= OVERFLOW[dtype]:
            raise CodecError("E501", f"{self.name}: a norm of {furthest:.6g} is beyond {dtype}")
        single = norms.astype(np.float32)
        return single if dtype is DType.F32 else single.astype(np.float16)


def unit_rows(
    block: Block, reach: NDArray[np.float32], turning: Rotation, scratch: Scratch
) -> UnitRows:
    """The rows of a block, turned and brought to one length; rows of zeros stay zeros."""
    values = block.values.reshape(-1, block.values.shape[-1])
    shifts = turning.digits - np.frexp(reach.reshape(-1, 1))[1]
    _scale(values, shifts, block.unit)
    np.rint(values, out=values)
    if turning.order != values.shape[1]:
        narrow, values = values, scratch.take("rotated", (len(values), turning.order), np.float32)
        values[:, narrow.shape[1] :] = 0
        np.copyto(values[:, : narrow.shape[1]], narrow)
    lengths = squares(values, scratch)
    turned = turning.turn(values, scratch)
    held = np.where(lengths > 0, lengths, 1)
    factors = (ONE * math.sqrt(turning.order) / turning.gain / np.sqrt(held)).astype(turned.dtype)
    np.multiply(turned, factors[:, None], out=turned)
    np.rint(turned, out=turned)
    z = scratch.take("rotated.z", turned.shape, np.int16)
    np.copyto(z, turned, casting="unsafe")
    return UnitRows(z, lengths, -shifts[:, 0])


def _scale(values: NDArray[np.float32], shifts: NDArray[np.int32], unit: np.float32) -> None:
    """values · unit · 2**shifts, row by row; one factor may not reach so far."""
    shifts = shifts + int(np.frexp(unit)[1] - 1)
    if int(shifts.max()) > _HIGHEST:
        # Halves over their unit are so small that all of them can be lifted.
        lifted = np.where(shifts > _HIGHEST, _LIFT, 0) if unit == 1 else np.int64(_LIFT)
        np.multiply(values, _power(lifted), out=values)
        shifts = shifts - lifted
    np.multiply(values, _power(shifts), out=values)


def _power(shifts: Any) -> Any:
    return ((shifts + 127).astype(np.uint32) << np.uint32(23)).view(np.float32)


def _coded(planes: Planes) -> Iterator[str]:
    """The names of planes that hold codes."""
    return (name for name in planes if name not in ("means", "centred", "norms"))


def _flat(plane: NDArray[Any]) -> NDArray[Any]:
    """(heads, tokens, n) as (rows, n): a view, since tiles are whole heads or part of one."""
    return plane.reshape(-1, plane.shape[-1])

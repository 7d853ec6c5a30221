"""turboquant_prod: turboquant_mse with a bit less, and a sketch of what it missed.

Spec: formats/codecs/turboquant_prod.md, revision 1.

    codes       of turboquant_mse with bits - 1, without norm correction
    signs       one bit a coordinate: the residual rotated once more, 1 where it is not negative
    residuals   the residual's length, as a part of the row's

The signs, rotated back and weighed, estimate the residual such that inner products with any
other vector are right on average over rotations; the restored row is further from the original.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.rotated import Rotated, UnitRows
from kvq_cli.errors import CodecError
from kvq_cli.numerics.levels import ONE, UNIT, levels
from kvq_cli.numerics.packing import pack_codes, take_codes
from kvq_cli.numerics.rotation import Rotation, rotation, squares
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record

# A Hadamard matrix alone makes of a residual sums with weights of one size, whose signs lean to
# its larger coordinates; after a second one weights are nearly normal.
SKETCH: Final = ("kvq/v1/sketch/1", "kvq/v1/sketch/2")
WIDEST: Final = 256  # order from which residuals are quartered: both turns must stay exact
MOST: Final = 0x4000  # bits of 2, as f16: a unit row and a vector of levels are not further apart


@record
class TurboquantProd(Rotated):
    """How many bits there are, the sign's among them."""

    name: ClassVar[str] = "turboquant_prod"
    revision: ClassVar[int] = 1

    bits: Literal[2, 3, 4, 5] = 4

    @property
    def unit(self) -> float:
        return ONE

    def code_planes(self, rows: tuple[int, int], order: int) -> Layout:
        return (
            Plane("residuals", "<f2", (*rows, 1), "HT1"),
            Plane("codes", "|u1", (*rows, order // 8 * (self.bits - 1)), "HTB"),
            Plane("signs", "|u1", (*rows, order // 8), "HTB"),
        )

    def place(
        self, unit: UnitRows, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> NDArray[np.float64]:
        count, order = unit.z.shape
        residual = scratch.take("prod.residual", unit.z.shape, np.float32)
        np.copyto(residual, unit.z)
        codes = take_codes((1, count, order), scratch)
        levels(order, self.bits - 1).code(unit.z, codes[0], scratch)
        pack_codes(codes, self.bits - 1, planes["codes"][None], scratch)
        np.subtract(residual, self._held(planes, order, scratch), out=residual)
        part = np.sqrt(squares(residual, scratch)) / (ONE * math.sqrt(order))
        np.copyto(planes["residuals"], part.astype(np.float32)[:, None], casting="same_kind")
        if order > WIDEST:
            np.multiply(residual, np.float32(0.25), out=residual)
            np.rint(residual, out=residual)
        for each in self._sketch(order):
            residual = each.turn(residual, scratch)
        codes = take_codes((1, count, order), scratch)
        np.greater_equal(residual, 0, out=codes[0].view(np.bool_))
        pack_codes(codes, 1, planes["signs"][None], scratch)
        return unit.lengths()

    def vectors(self, planes: Planes, order: int, scratch: Scratch) -> NDArray[np.float32]:
        missed = scratch.take("prod.signs", (len(planes["signs"]), order), np.float32)
        np.take(_signs(), planes["signs"], out=missed.view("V32"), mode="clip")
        part = ONE / (math.sqrt(order) * _mean_magnitude(order))
        for each in reversed(self._sketch(order)):
            missed = each.back(missed, scratch)
            part /= each.gain
        np.multiply(missed, planes["residuals"].astype(np.float32) * np.float32(part), out=missed)
        np.rint(missed, out=missed)
        held = self._held(planes, order, scratch)
        np.add(held, missed, out=held)
        return held

    def peak(self, order: int, scratch: Scratch) -> float:
        del scratch
        held = float(levels(order, self.bits - 1).positive[-1]) * ONE / UNIT
        return held + 2 * ONE / _mean_magnitude(order) + 1

    def _held(self, planes: Planes, order: int, scratch: Scratch) -> NDArray[np.float32]:
        """The levels of codes, in the units of z, alive in scratch."""
        held = levels(order, self.bits - 1).restore(planes["codes"], scratch)
        np.multiply(held, np.float32(ONE / UNIT), out=held)
        np.rint(held, out=held)
        return held

    def check_codes(self, planes: Planes, order: int) -> None:
        del order
        if int(planes["residuals"].view(np.uint16).max(initial=0)) > MOST:
            raise CodecError("E502", f"{self.name}: a residual longer than twice its row")

    def _sketch(self, order: int) -> list[Rotation]:
        """Turns, one after the other; the same for every kind of first rotation."""
        return [rotation("hadamard", order, self.seed, purpose) for purpose in SKETCH]


@cache
def _signs() -> NDArray[Any]:
    """-1 or 1 for each of the eight bits of a byte."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return (2 * bits.astype(np.float32) - 1).view("V32").reshape(-1)


@cache
def _mean_magnitude(order: int) -> float:
    """The mean of |u|, u a coordinate of a random unit vector of so many dimensions."""
    mean = 2 / math.pi
    for dimensions in range(2, order, 2):
        mean = mean * dimensions / (dimensions + 1)
    return mean

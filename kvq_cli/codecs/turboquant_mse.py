"""turboquant_mse: rotated rows, each coordinate at the nearest of the best levels for it.

Spec: formats/codecs/turboquant_mse.md, revision 1.

    code    of a coordinate of the rotated unit row, among 2**bits Lloyd-Max levels
    norm    of the row; with norm_correction such that the restored row has it
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.rotated import Rotated, UnitRows
from kvq_cli.numerics.levels import ONE, UNIT, levels
from kvq_cli.numerics.packing import pack_codes, take_codes
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record


@record
class TurboquantMse(Rotated):
    """How many levels there are, besides."""

    name: ClassVar[str] = "turboquant_mse"
    revision: ClassVar[int] = 1

    bits: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 4
    norm_correction: bool = True

    @property
    def unit(self) -> float:
        return UNIT

    def code_planes(self, rows: tuple[int, int], order: int) -> Layout:
        return (Plane("codes", "|u1", (*rows, order // 8 * self.bits), "HTB"),)

    def place(
        self, unit: UnitRows, planes: dict[str, NDArray[Any]], scratch: Scratch
    ) -> NDArray[np.float64]:
        count, order = unit.z.shape
        quantiser, packed = levels(order, self.bits), planes["codes"]
        codes = take_codes((1, count, order), scratch)
        quantiser.code(unit.z, codes[0], scratch)
        pack_codes(codes, self.bits, packed[None], scratch)
        if not self.norm_correction:
            return unit.lengths()
        weights = np.maximum(quantiser.weigh(packed, scratch), 1)  # 0 for a row of zeros only
        return unit.lengths(order * ONE / weights)

    def vectors(self, planes: Planes, order: int, scratch: Scratch) -> NDArray[np.float32]:
        return levels(order, self.bits).restore(planes["codes"], scratch)

    def peak(self, order: int, scratch: Scratch) -> float:
        del scratch
        return float(levels(order, self.bits).positive[-1])

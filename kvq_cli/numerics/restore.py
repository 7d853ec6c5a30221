"""restore: coded numbers times scales, plus means, rounded once to the bits of a dtype.

Law: docs/architecture.md. Product and sum are one float32 operation each, and so is the
rounding, half to even. A power of two that a conversion needs is folded into the scale where
nothing is subnormal: the product then rounds as it would without it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import LARGEST, OVERFLOW, SMALLEST_NORMAL, UNIT, gather, narrow
from kvq_cli.numerics.centre import Means
from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import Tile
from kvq_cli.page import DType
from kvq_cli.record import record


@record
class Restore:
    """From `source` pages to `target` bits; coded magnitudes are 0 or from `least` to `most`.

    With a `least` of 0, numbers of all sizes come out of a rotation: halves below 2**-14 are then
    rounded twice, first to a multiple of 2**-37, and zeros keep the signs they have.
    """

    source: DType
    target: DType
    groups: Groups
    least: float
    most: float
    means: Means | None
    scratch: Scratch

    def __call__(
        self,
        values: NDArray[np.float32],
        scales: NDArray[np.float32],
        out: NDArray[Any],
        tile: Tile,
        *,
        signs: NDArray[Any] | None = None,
    ) -> None:
        """Write values · scales + means, those of a tile, to `out`; destroys `values`.

        The source's own dtype is never overflowed: what is beyond it becomes its largest
        number. Another dtype is: CodecError. `signs` are integers with the signs of the
        products; without them scales may be negative, and no product is minus zero.
        """
        target, scratch, means = self.target, self.scratch, self.means
        magnitudes = np.abs(scales)
        reach = float(magnitudes.max(initial=0)) * self.most
        if means is None and target is DType.F16 and reach < LARGEST[target]:
            floor = float(np.where(magnitudes > 0, magnitudes, np.inf).min(initial=np.inf))
            if floor * self.least >= SMALLEST_NORMAL[target]:
                self._multiply(values, scales * (1 / UNIT[target]), signs)
                gather(values, target, out, scratch, signs=signs)
                return
        with np.errstate(over="ignore"):
            self._multiply(values, scales, signs)
            if means is not None:
                reach += float(np.abs(means.values).max(initial=0))
                means.add(values, tile)
        if reach >= LARGEST[target]:
            limit(values, self.source, self.target)
        if target is DType.F16 and not self.least:
            np.multiply(values, 1 / UNIT[target], out=values)
            gather(values, target, out, scratch)
        else:
            narrow(values, target, out, scratch)

    def _multiply(
        self,
        values: NDArray[np.float32],
        scales: NDArray[np.float32],
        signs: NDArray[Any] | None,
    ) -> None:
        self.groups.apply(np.multiply, values, scales)
        if signs is None and self.least:
            np.add(values, np.float32(0), out=values)  # scales have signs, zeros have none


def limit(values: NDArray[np.float32], source: DType, target: DType) -> None:
    """What is beyond the source's own dtype becomes its largest number; else CodecError."""
    largest = np.float32(LARGEST[target])
    if target is source:
        np.clip(values, -largest, largest, out=values)
    elif float(np.abs(values).max()) >= OVERFLOW[target]:
        raise CodecError(
            "E501",
            f"a restored {source} number is beyond the largest finite {target}",
        )

"""turning: rotary positions put into rows, and taken out again.

Spec: formats/transform.md, section "Rotary positions".

    turned      (x, y) to (x cos - y sin, y cos + x sin), pair by pair
    turned back the same with -sin: the inverse, as near as cosines have been rounded
"""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.basis import Turn
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record


@record(eq=False)
class Angles:
    """Cosines and sines of positions, (T, pairs)."""

    interleaved: bool
    cosines: Floats
    sines: Floats

    @classmethod
    def of(cls, turn: Turn, positions: NDArray[np.integer]) -> Self:
        cosines, sines = turn.at(positions)
        return cls(turn.interleaved, cosines.astype(np.float64), sines.astype(np.float64))

    def back(self) -> Angles:
        return Angles(self.interleaved, self.cosines, -self.sines)

    def turned(self, rows: Floats) -> Floats:
        """Rows (…, T, D) turned; channels behind the pairs stay."""
        turning = 2 * self.cosines.shape[-1]
        if self.interleaved:
            first, second = slice(0, turning, 2), slice(1, turning, 2)
        else:
            first, second = slice(0, turning // 2), slice(turning // 2, turning)
        found = rows.copy()
        one, other = rows[..., first], rows[..., second]
        found[..., first] = one * self.cosines - other * self.sines
        found[..., second] = other * self.cosines + one * self.sines
        return found

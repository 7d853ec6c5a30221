"""rotary: positions of keys put on and taken back, by the tables of a basis.

Spec: formats/transform.md, section "Rotary positions".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.basis import Turn
from kvq_cli.numerics.scratch import Scratch


def turn_rows(
    values: NDArray[np.float32], turn: Turn, position: int, scratch: Scratch, *, back: bool
) -> None:
    """Rotary positions of rows (H, T, D) put on, or taken back, in place."""
    cosines, sines = turn.angles(position, values.shape[1])
    if back:
        np.negative(sines, out=sines)
    width = 2 * turn.pairs
    if turn.interleaved:
        one, other = values[..., 0:width:2], values[..., 1:width:2]
    else:
        one, other = values[..., : turn.pairs], values[..., turn.pairs : width]
    first = scratch.take("transform.first", one.shape, np.float32)
    second = scratch.take("transform.second", one.shape, np.float32)
    spare = scratch.take("transform.spare", one.shape, np.float32)
    np.multiply(one, cosines, out=first)
    np.multiply(other, sines, out=spare)
    np.subtract(first, spare, out=first)
    np.multiply(other, cosines, out=second)
    np.multiply(one, sines, out=spare)
    np.add(second, spare, out=second)
    np.copyto(one, first)
    np.copyto(other, second)

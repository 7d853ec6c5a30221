"""cells: the nearest codeword of two coordinates, looked up.

Spec: formats/codebooks.md, section "Nearest codeword".

    first     the plane from -1024 to 1023 units, in cells of 4 x 4 points: a number per cell
    second    the index of each of the 16 points of a cell, by its number

The points whose index is n are those of an intersection of half-planes, with ties too: a tie is
the edge that belongs to the lower index. So it is convex, and a square belongs to one codeword
if its corners do. Squares are cut into four until that is so; of cells that it is not so for,
all points are searched. Cells of one codeword share its number, n.

Blocks that lie outside go to the search by `keys`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.keys import Keys
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

_SIDE: Final = 2048  # points of the plane in a row
_HALF: Final = _SIDE // 2
_COARSE: Final = 128  # points in a row of the squares to begin with
_CELL: Final = 4
_ACROSS: Final = _SIDE // _CELL
# Added to a float32 that lies on the plane, it leaves the rounded number + 1024 in the low bits.
_ROUNDER: Final = np.float32(12582912 + _HALF)
_ROUNDER_BITS: Final = 0x4B400000


@record
class Cells:
    """A codebook of pairs, ready to be searched."""

    keys: Keys
    first: NDArray[Any]  # as wide as numbers of cells are
    second: NDArray[Any]  # of `index_type`

    @classmethod
    def of(cls, codewords: NDArray[np.int16]) -> Cells:
        """Codewords (N, 2); ValueError where they are too many or too large."""
        keys, scratch = Keys.of(codewords), Scratch()
        image = np.full((_SIDE // _COARSE,) * 2, -1, np.int32)
        size = _COARSE
        while True:
            open_ = np.argwhere(image < 0)
            found = keys.exactly(_points(open_, size, _corners(size)), scratch).reshape(-1, 4)
            one = (found == found[:, :1]).all(axis=1)
            image[tuple(open_[one].T)] = found[one, 0]
            if size == _CELL:
                break
            size //= 2
            image = image.repeat(2, axis=0).repeat(2, axis=1)
        mixed = open_[~one]
        image[tuple(mixed.T)] = len(codewords) + np.arange(len(mixed))
        inner = keys.exactly(_points(mixed, _CELL, np.argwhere(np.ones((_CELL, _CELL)))), scratch)
        plain = np.arange(len(codewords)).astype(inner.dtype).repeat(_CELL * _CELL)
        wide = np.uint16 if int(image.max()) < 1 << 16 else np.uint32
        return cls(keys, image.astype(wide).reshape(-1), np.concatenate([plain, inner]))

    def __call__(self, blocks: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        """The index of the codeword nearest to each of the blocks (n, 2), in units of the grid."""
        count = len(blocks)
        words = scratch.take("cells.words", blocks.shape, np.float32)
        np.add(blocks, _ROUNDER, out=words)
        units = words.view(np.uint32)
        np.subtract(units, _ROUNDER_BITS, out=units)
        outside = None
        if units.max(initial=0) >= _SIDE:
            outside = np.flatnonzero((units >= _SIDE).any(axis=1))
            np.minimum(units, _SIDE - 1, out=units)
        pairs = scratch.take("cells.pairs", (count,), np.uint32)
        halves = pairs.view(np.uint16).reshape(blocks.shape)
        np.copyto(halves, units, casting="unsafe")
        self._look_up(pairs, out, scratch)
        if outside is not None:
            out[outside] = self.keys.exactly(blocks[outside], scratch)

    def _look_up(
        self,
        pairs: NDArray[np.uint32],
        out: NDArray[Any],
        scratch: Scratch,
    ) -> None:
        """`pairs` have the second coordinate in the upper half."""
        low = scratch.take("cells.low", pairs.shape, np.uint32)
        high = scratch.take("cells.high", pairs.shape, np.uint32)
        places = scratch.take("cells.places", pairs.shape, np.intp)
        numbers = scratch.take("cells.numbers", pairs.shape, self.first.dtype)
        np.right_shift(pairs, 2, out=low)
        np.bitwise_and(low, _ACROSS - 1, out=low)
        np.right_shift(pairs, 9, out=high)
        np.bitwise_and(high, (_ACROSS - 1) * _ACROSS, out=high)
        np.bitwise_or(low, high, out=places, casting="unsafe")
        np.take(self.first, places, mode="clip", out=numbers)
        np.bitwise_and(pairs, 3, out=low)
        np.right_shift(pairs, 14, out=high)
        np.bitwise_and(high, 12, out=high)
        np.bitwise_or(low, high, out=low)
        np.copyto(high, numbers)
        np.left_shift(high, 4, out=high)
        np.bitwise_or(low, high, out=places, casting="unsafe")
        np.take(self.second, places, mode="clip", out=out)


def _corners(size: int) -> NDArray[np.intp]:
    return np.argwhere(np.ones((2, 2))) * (size - 1)


def _points(squares: NDArray[np.intp], size: int, inner: NDArray[np.intp]) -> NDArray[np.intp]:
    """Points at these places within each of the squares, (n, 2); rows are second coordinates."""
    found = (squares[:, None] * size + inner).reshape(-1, 2)
    return found[:, ::-1] - _HALF

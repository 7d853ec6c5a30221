"""nearest: blocks of coordinates to codewords and back.

Spec: formats/codebooks.md, sections "Grid" and "Nearest codeword".

    x       block of k coordinates in units of the grid: round half to even, clip ±32768
    c_n     codeword n, integers
    index   the n with the least |x - c_n|², of several the lowest

A search is made once for a codebook and used by every thread. Pairs are looked up (`cells`),
larger blocks are searched (`keys`), by symmetry where the codebook has one. Coordinates come
already multiplied by 2**grid: who has them has a factor to fold that into.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.cells import Cells
from kvq_cli.numerics.keys import Keys
from kvq_cli.numerics.scratch import Scratch

_PAIRS: Final = 1 << 10  # codewords up to which cells are made in a moment


class Search(Protocol):
    """From blocks (n, k), in units of the grid, to indices (n,) of `index_type`."""

    def __call__(
        self, blocks: NDArray[np.float32], out: NDArray[Any], scratch: Scratch
    ) -> None: ...


def grid(block: int) -> int:
    """Coordinates of codewords of this many are integers · 2**-grid."""
    return 7 if block <= 2 else 6 if block <= 8 else 5


def search(codewords: NDArray[np.int16]) -> Search:
    """A way to search codewords (N, k); ValueError where they are too many or too large."""
    size, block = codewords.shape
    return Cells.of(codewords) if block == 2 and size <= _PAIRS else Keys.of(codewords)


def gather(
    indices: NDArray[Any],
    codewords: NDArray[np.float32],
    out: NDArray[np.float32],
    scratch: Scratch,
) -> None:
    """The codewords (n, k) of indices (n,) below N: whoever reads them has checked that."""
    places = scratch.take("nearest.places", indices.shape, np.intp)
    np.copyto(places, indices)
    np.take(codewords, places, axis=0, mode="clip", out=out)

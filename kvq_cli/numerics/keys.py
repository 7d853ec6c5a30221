"""keys: the nearest codeword by one matrix product and one maximum.

Spec: formats/codebooks.md, section "Nearest codeword".

The n with the least |x - c_n|² has the greatest score 2⟨x, c_n⟩ - |c_n|². With E a power of two,
no less than the number of rows, score and row go into one integer:

    key = E · (2⟨x, c_n⟩ - |c_n|²) + E - 1 - n        greatest key: greatest score, then lowest n

Scores are sums of products of integers. By Cauchy and Schwarz no partial sum, in whatever order,
is beyond E · (2|x||c| + |c|² + 1). Where that is below 2**24, float32 holds every one of them, and
all BLAS agree. Of folded points (`symmetry`) no product is negative, so that partial sums lie
between -E · |c|² and E · (2|x||c| + 1). Blocks that lie further out are done over in float64,
where clipped ones always fit: E · (2|x||c| + |c|² + 1) < 2**16 · 2**36 < 2**53.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.exact import count_sum
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symmetry import Symmetry, recognise
from kvq_cli.record import record

CLIP: Final = 1 << 15  # of x, in units; no row of fewer than 2**16 channels gets there
LARGEST: Final = 1 << 12  # of a codeword's coordinate
MOST_CODEWORDS: Final = 1 << 16
MOST_BLOCK: Final = 64
_HELD: Final = 1 << 24  # integers up to here are exact in float32
_SCORES: Final = 1 << 17  # keys in a tile: 512 KiB, half of a usual L2 cache
_LEAST, _MOST = 32, 2048  # points in a tile


@record
class Keys:
    """A codebook, ready to be searched."""

    symmetry: Symmetry
    matrix: NDArray[np.float64]  # (B, k + 1), so that a point with 1 behind it gives its keys
    narrow: NDArray[np.float32]  # the same, for points up to `reach`
    reach: int  # |x|² up to which float32 holds; negative where it would not do for many
    indices: NDArray[Any]  # of `index_type`, by E - 1 - row, then by way

    @classmethod
    def of(cls, codewords: NDArray[np.int16]) -> Keys:
        """Codewords (N, k); ValueError where they are too many or too large."""
        _check(codewords)
        symmetry, bases = recognise(codewords)
        spread = 1 << (len(bases) - 1).bit_length()
        wide = bases.astype(np.int64)
        norms = count_sum(
            (wide * wide).view(np.uint64), axis=1, largest=LARGEST * LARGEST, dtype="<u8"
        )
        last = np.arange(spread - 1, spread - 1 - len(bases), -1)
        constant = last - spread * norms[:, 0].view(np.int64)
        matrix = np.column_stack([wide * (2 * spread), constant]).astype(np.float64)
        return cls(
            symmetry,
            matrix,
            matrix.astype(np.float32),
            _reach(int(norms.max()), spread, symmetry),
            _indices(codewords, bases, symmetry, spread),
        )

    def __call__(self, blocks: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        """The index of the codeword nearest to each of the blocks (n, k), in units of the grid."""
        count, block = blocks.shape
        if self.reach < 0:
            out[...] = self.exactly(blocks, scratch)
            return
        points = scratch.take("keys.points", (block + 1, count), np.float32)
        points[block] = 1
        inner = points[:block]
        np.rint(blocks.T, out=inner)
        far = self._beyond(inner, scratch)
        if far.size:
            inner[:, far] = 0
        self._search(points, self.narrow, out, scratch)
        if far.size:
            out[far] = self.exactly(blocks[far], scratch)

    def exactly(self, blocks: NDArray[Any], scratch: Scratch) -> NDArray[Any]:
        """The same in float64, wherever the blocks lie."""
        count, block = blocks.shape
        points = scratch.take("keys.points", (block + 1, count), np.float64)
        points[block] = 1
        np.rint(blocks.T, out=points[:block])
        np.clip(points, -CLIP, CLIP, out=points)
        out = np.empty(count, self.indices.dtype)
        self._search(points, self.matrix, out, scratch)
        return out

    def _beyond(self, inner: NDArray[np.float32], scratch: Scratch) -> NDArray[np.intp]:
        """Which points lie further out than `reach`: sums below 2**24 are exact."""
        square = scratch.take("keys.square", inner.shape[1:], np.float32)
        norms = scratch.take("keys.norms", inner.shape[1:], np.float32)
        norms.fill(0)
        with np.errstate(over="ignore"):
            for row in inner:
                np.multiply(row, row, out=square)
                np.add(norms, square, out=norms)
        if norms.max(initial=0) <= self.reach:
            return np.empty(0, np.intp)
        return np.flatnonzero(norms > self.reach)

    def _search(
        self,
        points: NDArray[Any],
        matrix: NDArray[Any],
        out: NDArray[Any],
        scratch: Scratch,
    ) -> None:
        count, rows = points.shape[1], len(matrix)
        ways = scratch.take("keys.ways", (count,), np.intp)
        places = scratch.take("keys.places", (count,), np.intp)
        greatest = scratch.take("keys.greatest", (count,), points.dtype)
        self.symmetry.fold(points[:-1], ways, scratch)
        step = max(_LEAST, min(_SCORES // rows, _MOST))
        tile = scratch.take("keys.tile", (rows, step), points.dtype)
        for start in range(0, count, step):
            stop = min(start + step, count)
            keys = tile[:, : stop - start]
            np.matmul(matrix, points[:, start:stop], out=keys)
            keys.max(axis=0, out=greatest[start:stop])
        np.copyto(places, greatest, casting="unsafe")
        np.bitwise_and(places, (len(self.indices) >> self.symmetry.bits) - 1, out=places)
        np.left_shift(places, self.symmetry.bits, out=places)
        np.bitwise_or(places, ways, out=places)
        np.take(self.indices, places, mode="clip", out=out)


def index_type(count: int) -> np.dtype[Any]:
    """Of indices into so many codewords: what searches write."""
    return np.dtype(np.uint8 if count <= 1 << 8 else np.uint16)


def _check(codewords: NDArray[np.int16]) -> None:
    count, block = codewords.shape
    if not 0 < count <= MOST_CODEWORDS or not 0 < block <= MOST_BLOCK:
        raise ValueError(f"{count} codewords of {block} coordinates, at most 65536 of 64 fit")
    if int(codewords.max()) > LARGEST or int(codewords.min()) < -LARGEST:
        raise ValueError(f"a coordinate of a codeword beyond {LARGEST}")


def _reach(norm: int, spread: int, symmetry: Symmetry) -> int:
    """The largest |x|² with E · (2|x||c| + |c|² + 1) < 2**24 for |c|² up to `norm`."""
    room = _HELD // spread - 2 - norm
    if room <= 0:
        return -1
    if symmetry.runs:
        room += norm  # what is added and what is taken away are bounded one by one
    reach = min(room * room // (4 * max(1, norm)), _HELD - 1)
    return reach if reach >= norm * 3 // 2 else -1


def _indices(
    codewords: NDArray[np.int16], bases: NDArray[np.int16], symmetry: Symmetry, spread: int
) -> NDArray[Any]:
    """Where the codeword stands that each row and way lead to."""
    table = np.zeros((spread, 1 << symmetry.bits), index_type(len(codewords)))
    place = {row: at for at, row in reversed(list(enumerate(map(tuple, codewords.tolist()))))}
    led = symmetry.unfold(bases).reshape(-1, bases.shape[1]).tolist()
    found = np.array([place[tuple(row)] for row in led], table.dtype)
    table[spread - len(bases) :] = found.reshape(len(bases), -1)[::-1]
    return table.reshape(-1)

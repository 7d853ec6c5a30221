"""symmetry: codebooks that reflections map onto themselves, and points folded by them.

Spec: formats/codebooks.md, section "Order".

    signs       a coordinate takes its magnitude        x_i → |x_i|
    exchanges   neighbours in descending order          x_i, x_j → max, min      j = i + 1

A codebook is a union of orbits. Folded, all points of an orbit are one, the base. Signs and
exchanges are reflections, and of an orbit of reflections the point nearest to x is the one that
folds by the same steps as x: |x - c| of folded points is the distance to the whole orbit. So
only bases are searched, 45 for 4,096 codewords.

Order of codewords: by bases; of one orbit first by magnitudes, the larger first; then by signs,
+ before -. A tie between codewords is one between bases, or comes from coordinates of x that are
0 or of equal magnitude. Steps are then not taken (0 is folded like +, equal neighbours stay), and
that leads to the lowest index of the orbit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, permutations, product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

MOST: Final = 10  # bits of a way: tables have 2**10 places a base
Row = tuple[int, ...]


@record
class Symmetry:
    """Which steps there are: the magnitudes of all coordinates, or none; then the exchanges."""

    block: int
    runs: tuple[int, ...] = ()  # lengths of runs of coordinates that are sorted; () is no step

    @property
    def bits(self) -> int:
        """Of a way, that tells which steps were taken."""
        return self.block + len(self.exchanges()) if self.runs else 0

    def exchanges(self) -> list[tuple[int, int]]:
        """Passes of neighbours, as in bubble sort: equal ones keep their order."""
        found, start = [], 0
        for length in self.runs:
            for last in range(length - 1, 0, -1):
                found += list(pairwise(range(start, start + last + 1)))
            start += length
        return found

    def fold(self, points: NDArray[Any], ways: NDArray[np.intp], scratch: Scratch) -> None:
        """Points (k, n) become their bases' place; the way of each goes to `ways`."""
        ways.fill(0)
        if not self.runs:
            return
        count = points.shape[1]
        taken = scratch.take("symmetry.taken", (self.block, count), np.bool_)
        low = scratch.take("symmetry.low", (count,), points.dtype)
        code = scratch.take("symmetry.code", (count,), np.uint8 if self.bits <= 8 else np.uint16)
        code.fill(0)
        np.less(points, 0, out=taken)
        np.abs(points, out=points)
        for step in taken:
            _append(code, step)
        for first, second in self.exchanges():
            _append(code, np.less(points[first], points[second], out=taken[0]))
            np.minimum(points[first], points[second], out=low)
            np.maximum(points[first], points[second], out=points[first])
            np.copyto(points[second], low)
        np.copyto(ways, code)

    def unfold(self, bases: NDArray[Any]) -> NDArray[Any]:
        """What each way leads back to, (B, 2**bits, k)."""
        ways = np.arange(1 << self.bits)
        found = np.repeat(bases[:, None], len(ways), axis=1)
        if not self.runs:
            return found
        exchanges = self.exchanges()
        for at, (first, second) in enumerate(reversed(exchanges)):
            taken = np.flatnonzero(ways >> at & 1)
            found[:, taken[:, None], [first, second]] = found[:, taken[:, None], [second, first]]
        for at in range(self.block):
            taken = np.flatnonzero(ways >> (self.bits - 1 - at) & 1)
            found[:, taken, at] *= -1
        return found

    def orbit(self, base: Row) -> list[Row]:
        """All points that fold to one, in the order of codebooks."""
        if not self.runs:
            return [base]
        pieces, start = [], 0
        for length in self.runs:
            pieces.append(sorted(set(permutations(base[start : start + length])), reverse=True))
            start += length
        return [
            signed
            for chosen in product(*pieces)
            for signed in _signed(tuple(value for piece in chosen for value in piece))
        ]


def _append(code: NDArray[Any], step: NDArray[np.bool_]) -> None:
    np.add(code, code, out=code)
    np.add(code, step.view(np.uint8), out=code)


def _signed(magnitudes: Row) -> Iterator[Row]:
    yield from product(*((value, -value) if value else (0,) for value in magnitudes))


def expand(symmetry: Symmetry, bases: Sequence[Row]) -> NDArray[np.int16]:
    """The codebook of these bases."""
    return np.array(list(_rows(symmetry, bases)), np.int16)


def folded(symmetry: Symmetry, codewords: NDArray[np.int16]) -> list[Row]:
    """The bases of codewords, in the order in which they come first."""
    points = codewords.T.copy()
    symmetry.fold(points, np.empty(len(codewords), np.intp), Scratch())
    return list(dict.fromkeys(map(tuple, points.T.tolist())))


def recognise(codewords: NDArray[np.int16]) -> tuple[Symmetry, NDArray[np.int16]]:
    """The largest symmetry of a codebook, orders of its codewords included, and its bases."""
    count, block = codewords.shape
    for symmetry in _candidates(block):
        bases = folded(symmetry, codewords)
        # Orbits of what is no union of them could be many times as many points.
        rows = list(islice(_rows(symmetry, bases), count + 1))
        if len(rows) == count and np.array_equal(rows, codewords):
            return symmetry, np.array(bases, np.int16)
    return Symmetry(block), codewords


def _rows(symmetry: Symmetry, bases: Sequence[Row]) -> Iterator[Row]:
    for base in bases:
        yield from symmetry.orbit(base)


def _candidates(block: int) -> Iterator[Symmetry]:
    for size in (4, 2, 1):
        symmetry = Symmetry(block, (size,) * (block // size))
        if block % size == 0 and symmetry.bits <= MOST:
            yield symmetry

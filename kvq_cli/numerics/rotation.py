"""rotation: rows turned by a seeded orthogonal matrix, exactly.

Spec: formats/codecs/README.md, section "Rotations".

    order     the D that is turned; rows of fewer channels are filled with zeros
    hadamard  H · diag(s): entries 1 and -1, s signs from the seed; rows get sqrt(order) longer
    haar      integers near 2**24 · Q, Q a random rotation from the seed; rows get 2**24 longer
    gain      how much longer; `share` is 1 / (gain · sqrt(order))
    digits    of the integers that rows may hold

Rows are integers, and so are all products and sums of them. No sum passes what its float type
holds exactly, so in whatever order a matrix product adds, the result is the same.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from kvq_cli.numerics.exact import product, squared
from kvq_cli.numerics.paley import hadamard, odd_order
from kvq_cli.numerics.scratch import Scratch

Kind: TypeAlias = Literal["hadamard", "haar"]
Rows: TypeAlias = NDArray[np.float32]  # integers, (rows, order)

LARGEST: Final = 640
PURPOSE: Final = "kvq/v1/rotation"
_SIDE: Final = 16  # of the small matrices: products with them take the least time
_GRID: Final = 2.0**24  # of the entries of a dense rotation
_NORMAL_BYTES: Final = 32  # as many bits as are counted for a number that is nearly normal


class Hadamard:
    """A product with a small matrix for each block of a row, then one across the blocks.

    No sum passes 2**24 where rows are below 2**digits, or of less than 2**24 / gain in length.
    """

    def __init__(self, order: int, seed: int, purpose: str = PURPOSE) -> None:
        self.order = order
        self.digits = 15 if order <= 512 else 14
        side = odd_order(order)
        while side < _SIDE and order // side % 2 == 0:
            side *= 2
        self.gain = math.sqrt(order)
        self.share = 1 / order
        small = hadamard(side).astype(np.float32)
        bits = np.unpackbits(_seeded(purpose, seed, order, order // 8), bitorder="little")
        signs = (1 - 2 * bits.astype(np.float32)).reshape(-1, side)
        self._across = hadamard(order // side).astype(np.float32)
        self._turn = np.ascontiguousarray(signs[:, :, None] * small.T)
        self._back = np.ascontiguousarray(small * signs[:, None, :])

    def turn(self, rows: Rows, scratch: Scratch) -> Rows:
        """The turned rows, alive in scratch."""
        spare, out = _taken("turn", len(rows), self._turn.shape, scratch)
        _by_block(rows.reshape(spare.shape), self._turn, spare)
        product(self._across, spare, out)
        return out.reshape(rows.shape)

    def back(self, rows: Rows, scratch: Scratch) -> Rows:
        """Rows by the transposed matrix, alive in scratch."""
        spare, out = _taken("back", len(rows), self._back.shape, scratch)
        product(self._across, rows.reshape(spare.shape), spare)
        _by_block(spare, self._back, out)
        return out.reshape(rows.shape)


class Haar:
    """A dense matrix in float64: rows below 2**18 stay far below 2**53."""

    def __init__(self, order: int, seed: int, purpose: str = PURPOSE) -> None:
        self.order = order
        self.digits = 15
        self.gain = _GRID
        self.share = 1 / (_GRID * math.sqrt(order))
        self._matrix = np.rint(_orthogonal(order, seed, purpose) * _GRID)
        self._turned = np.ascontiguousarray(self._matrix.T)

    def turn(self, rows: Rows, scratch: Scratch) -> NDArray[np.float64]:
        """The turned rows, alive in scratch."""
        return self._product("turn", rows, self._turned, scratch)

    def back(self, rows: Rows, scratch: Scratch) -> Rows:
        """Rows by the transposed matrix, rounded to float32; alive in scratch."""
        exact = self._product("back", rows, self._matrix, scratch)
        out = scratch.take("rotation.back", rows.shape, np.float32)
        np.copyto(out, exact, casting="same_kind")
        return out

    @staticmethod
    def _product(
        name: str, rows: Rows, matrix: NDArray[np.float64], scratch: Scratch
    ) -> NDArray[np.float64]:
        wide = scratch.take("rotation.wide", rows.shape, np.float64)
        out = scratch.take(f"rotation.{name}.wide", rows.shape, np.float64)
        np.copyto(wide, rows)
        return product(wide, matrix, out)


Rotation: TypeAlias = Hadamard | Haar


@lru_cache(maxsize=32)
def rotation(kind: Kind, order: int, seed: int, purpose: str = PURPOSE) -> Rotation:
    """The rotation of a seed; `purpose` tells apart several of one seed."""
    return Hadamard(order, seed, purpose) if kind == "hadamard" else Haar(order, seed, purpose)


def squares(rows: Rows, scratch: Scratch) -> NDArray[np.float64]:
    """The sum of squares of each row of integers below 2**20, exact."""
    wide = scratch.take("rotation.wide", rows.shape, np.float64)
    np.copyto(wide, rows)
    return squared(wide)


def _taken(
    name: str, rows: int, shape: tuple[int, ...], scratch: Scratch
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Arrays of (rows, blocks, side), to work in and for the result."""
    whole = (rows, *shape[:2])
    return (
        scratch.take("rotation.spare", whole, np.float32),
        scratch.take(f"rotation.{name}", whole, np.float32),
    )


def _by_block(rows: NDArray[Any], matrices: NDArray[Any], out: NDArray[Any]) -> None:
    """Block i of every row times matrix i."""
    product(rows.transpose(1, 0, 2), matrices, out.transpose(1, 0, 2))


def _seeded(purpose: str, seed: int, order: int, nbytes: int) -> NDArray[np.uint8]:
    """The output of BLAKE3 for a seed, as long as asked."""
    words = seed.to_bytes(8, "little") + order.to_bytes(8, "little")
    return np.frombuffer(blake3(purpose.encode() + b"\0" + words).digest(nbytes), np.uint8)


def _orthogonal(order: int, seed: int, purpose: str) -> NDArray[np.float64]:
    """Rows of nearly normal numbers, made orthogonal one after the other, twice over.

    Every sum is of halves, halves of halves and so on, so that its order is this one.
    """
    drawn = _seeded(purpose, seed, order, order * order * _NORMAL_BYTES)
    ones = np.bitwise_count(drawn.view("<u8")).reshape(order, order, -1)
    rows = (_halved(ones.astype(np.float64)) - 4 * _NORMAL_BYTES).reshape(order, order)
    for _ in range(2):
        for at in range(order):
            row = rows[at] / np.sqrt(_halved(rows[at] * rows[at]))
            rows[at] = row
            rest = rows[at + 1 :]
            rest -= _halved(rest * row)[:, None] * row
    return rows


def _halved(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over the last axis: the first half plus the second, an odd one out apart."""
    while numbers.shape[-1] > 1:
        half = numbers.shape[-1] // 2
        odd = numbers[..., 2 * half :]
        numbers = numbers[..., :half] + numbers[..., half : 2 * half]
        if odd.size:
            numbers = np.concatenate((numbers, odd), axis=-1)
    return numbers[..., 0]

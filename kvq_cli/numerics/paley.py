"""paley: matrices of 1 and -1 whose rows are orthogonal.

Spec: formats/codecs/README.md, section "Rotations".

    H(2n) = [[1, 1], [1, -1]] ⊗ H(n), from H(1) = [[1]] or a Paley matrix
    c(i)   0 for i = 0 mod q, 1 for other squares mod q, else -1

    I     q prime, q = 3 mod 4, order q + 1          1 + [[0, 1…], [-1…, c(j - i)]]
    II    q prime, q = 1 mod 4, order 2 (q + 1)      S ⊗ [[1, 1], [1, -1]] + 1 ⊗ [[1, -1], [-1, -1]]
                                                     S = [[0, 1…], [1…, c(j - i)]]
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

STEP: Final = 8  # orders are multiples of this: codes of a row then fill whole bytes


@lru_cache(maxsize=64)
def hadamard(order: int) -> NDArray[np.int8]:
    """H of this order; AssertionError where `odd_order` gives none."""
    side = odd_order(order)
    found = np.ones((1, 1), np.int8) if side == 1 else _paley(side)
    while len(found) < order:
        found = np.block([[found, found], [found, -found]]).astype(np.int8)
    found.flags.writeable = False
    return found


def odd_order(order: int) -> int:
    """The order of the Paley matrix that H(order) doubles: the smallest there is; 0 for none."""
    side = order
    while side % 2 == 0:
        side //= 2
    while side <= order:
        if side == 1 or _kind(side):
            return side
        side *= 2
    return 0


def least_order(least: int) -> int:
    """The first multiple of 8 from `least` on that there is a matrix of."""
    order = -(-least // STEP) * STEP
    while not odd_order(order):
        order += STEP
    return order


def _kind(order: int) -> int:
    """1 or 2, as Paley numbers his constructions; 0 for none."""
    if order % 4 == 0 and _is_prime(order - 1):
        return 1
    return 2 if order % 4 == 0 and _is_prime(order // 2 - 1) and order // 2 % 4 == 2 else 0


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def _paley(order: int) -> NDArray[Any]:
    found: NDArray[Any]
    if _kind(order) == 1:
        found = _residues(order - 1, below=-1) + np.eye(order, dtype=np.int8)
        return found
    core, one = _residues(order // 2 - 1, below=1), np.eye(order // 2, dtype=np.int8)
    plus, minus = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
    found = _blocks(core, plus) + _blocks(one, minus)
    return found


def _residues(prime: int, *, below: int) -> NDArray[Any]:
    """c(j - i) with a first row of ones and a first column of `below`."""
    squares = {number * number % prime for number in range(1, prime)}
    classes = [0, *(1 if number in squares else -1 for number in range(1, prime))]
    places = np.arange(prime)
    core = np.ones((prime + 1, prime + 1), np.int8)
    core[1:, 0] = below
    core[0, 0] = 0
    core[1:, 1:] = np.array(classes, np.int8)[(places - places[:, None]) % prime]
    return core


def _blocks(outer: NDArray[Any], block: NDArray[Any]) -> NDArray[Any]:
    """The Kronecker product."""
    size = len(outer) * len(block)
    pairs: NDArray[Any] = outer[:, None, :, None] * block[None, :, None, :]
    return pairs.reshape(size, size)

"""search: the nearest codeword of each block, exactly as a search one by one finds it.

Spec: formats/fibquant-compat.md, section "Nearest codeword".

    distance = (s₀ - c₀)² + (s₁ - c₁)² + …   in float64, from the first coordinate to the last
    nearest  = the first codeword of the least distance

A product of matrices in float32 first gives |c|² - 2 s·c for all pairs, which orders codewords
as their distances do, but for an error that is bounded here. Where the two best lie closer
together than the bound, the exact distances of that block decide. So no order of sums that a
library chooses can change an index; it can only change how many blocks are looked at twice,
about 1 in 1,000.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_TILE: Final = 1 << 17  # pairs at a time, which stay in the cache
_EXACT_TILE: Final = 1 << 14


def nearest(
    blocks: NDArray[np.float64], codewords: NDArray[np.float64]
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The index of the nearest codeword of each row of `blocks`, and its distance.

    Blocks are parts of unit vectors; float32 must hold the squares of all values.
    """
    indices, doubtful = narrowed(blocks, codewords, weights_of(codewords))
    indices[doubtful] = nearest_exactly(blocks[doubtful], codewords)
    return indices, distances(blocks, codewords[indices])


def nearest_exactly(
    blocks: NDArray[np.float64], codewords: NDArray[np.float64]
) -> NDArray[np.intp]:
    """The same indices, by the distance of every pair."""
    indices = np.empty(len(blocks), np.intp)
    step = max(1, _EXACT_TILE // len(codewords))
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step, None]
        indices[start : start + step] = distances(part, codewords[None]).argmin(axis=1)
    return indices


def distances(blocks: NDArray[np.float64], codewords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances along the last axis, each summed from first to last."""
    total = np.zeros(np.broadcast_shapes(blocks.shape, codewords.shape)[:-1])
    for at in range(blocks.shape[-1]):
        difference = blocks[..., at] - codewords[..., at]
        difference *= difference
        total += difference
    return total


def weights_of(codewords: NDArray[np.float64]) -> NDArray[np.float32]:
    """(k + 1, N): what a block with a 1 behind it is multiplied by to get its scores."""
    lengths = distances(codewords, np.zeros(codewords.shape))
    return np.vstack([-2.0 * codewords.T, lengths]).astype(np.float32)


def narrowed(
    blocks: NDArray[np.float64],
    codewords: NDArray[np.float64],
    weights: NDArray[np.float32],
    off: float = 0.0,
) -> tuple[NDArray[np.intp], NDArray[Any]]:
    """Indices of the least scores, and the rows where they prove nothing.

    Coordinates of blocks may be off by so much.
    """
    indices = np.empty(len(blocks), np.intp)
    bound = _bound(blocks, codewords, off)
    step = max(1, _TILE // len(codewords))
    doubtful = [np.empty(0, np.intp)]
    for start in range(0, len(blocks), step):
        part = slice(start, start + step)
        indices[part], gaps = _least(blocks[part], weights)
        doubtful.append(start + np.flatnonzero(gaps <= bound))
    return indices, np.concatenate(doubtful)


def _least(
    blocks: NDArray[np.float64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Indices of the least scores, and how much larger the next ones are."""
    rows = np.arange(len(blocks))
    ones = np.ones((len(blocks), blocks.shape[1] + 1), np.float32)
    ones[:, :-1] = blocks
    scores = ones @ weights
    found = scores.argmin(axis=1)
    least = scores[rows, found]
    scores[rows, found] = np.inf
    return found, scores[rows, scores.argmin(axis=1)] - least


def _bound(blocks: NDArray[np.float64], codewords: NDArray[np.float64], off: float) -> float:
    """Twice what a score and an exact distance may be off together.

    Of s and c the lengths are at most S and C. A score is a sum of k + 1 products of rounded
    factors: in any order, fused or not, it is off by less than (k + 8) 2^-23 (2 S C + C²), which
    is twice the textbook's bound, and by 2^-100 for what underflows. An exact distance is off
    by less than (k + 2) 2^-52 (S + C)². Blocks off by up to √k · `off` move a difference of two
    distances by 4 C times as much.
    """
    k = blocks.shape[1]
    s, c = (np.sqrt(distances(each, np.zeros(k)).max(initial=0.0)) for each in (blocks, codewords))
    single = (k + 8) * 2.0**-23 * (2.0 * s * c + c * c) + 2.0**-100
    double = (k + 2) * 2.0**-52 * (s + c) * (s + c)
    moved = 4.0 * c * np.sqrt(k) * off
    return float(2.0 * (single + double + moved))

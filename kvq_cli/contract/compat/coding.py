"""coding: vectors into norms and indices of codewords, and back, given rotation and codebook.

Spec: formats/fibquant-compat.md, section "Vector code".

    encode   norm = √Σ x²    y = Q (x / norm)    per block of y the nearest codeword
    decode   x = Qᵀ (codewords) · norm           the norm as float16, x as float32

A sum has an order, the first term first, which costs many passes over memory. So a product of
matrices comes first, in whatever order the library likes. Any two orders of a sum of d products
differ by less than an error that is bounded here (`reach`). Where all numbers within the bound
give the same float32, or the same nearest codeword, so does the sum in its order; elsewhere,
about one vector in 1,000, the sum is made in its order (`in_order`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.search import narrowed, nearest_exactly, weights_of
from kvq_cli.record import record

Array: TypeAlias = NDArray[np.float64]

TILE: Final = 256  # vectors at a time: d = 128 stays in the cache


class Refusal(IntEnum):
    """Why a vector has no code."""

    NONE = 0
    NON_FINITE = 1
    ZERO_NORM = 2
    NORM_RANGE = 3  # from 65,520 on, or 2^-25 and less


@record(eq=False)
class VectorCodes:
    """Codes of n vectors; a refused one has zeros."""

    norms: NDArray[np.uint16]  # (n,), bits of float16
    indices: NDArray[np.uint32]  # (n, blocks)
    refusals: NDArray[np.uint8]  # (n,), numbers of Refusal


def encode_vectors(
    vectors: NDArray[np.float32], rotation: Array, codewords: NDArray[np.float32]
) -> VectorCodes:
    """Codes of the rows of (n, d)."""
    wide, refusals = _finite(vectors)
    norms = _norms(wide)
    halves = _halves(norms)
    refusals[(norms > 0.0) & (halves == 0)] = Refusal.NORM_RANGE
    refusals[(norms == 0.0) & (refusals == Refusal.NONE)] = Refusal.ZERO_NORM
    without = refusals != Refusal.NONE
    wide[without], norms[without] = 0.0, 1.0
    wide /= norms[:, None]
    indices = _nearest(wide, rotation, codewords.astype(np.float64))
    indices[without] = 0
    return VectorCodes(halves, indices, refusals)


def decode_vectors(
    norms: NDArray[np.uint16],
    indices: NDArray[np.uint32],
    rotation: Array,
    codewords: NDArray[np.float32],
) -> NDArray[np.float32]:
    """(n, d) vectors of (n,) finite norms and (n, blocks) indices of codewords."""
    count, dim = len(norms), len(rotation)
    scales = norms.view(np.float16).astype(np.float64)[:, None]
    wide = codewords.astype(np.float64)
    off = reach(rotation, float(np.sqrt(indices.shape[1])) * _longest(wide))
    vectors = np.empty((count, dim), np.float32)
    differ = np.empty(count, np.bool_)
    for at in range(0, count, TILE):
        part = slice(at, at + TILE)
        turned = _words(wide, indices[part]) @ rotation
        low, high = vectors[part], np.empty(turned.shape, np.float32)
        np.multiply(turned - off, scales[part], out=low, casting="unsafe")
        np.multiply(turned + off, scales[part], out=high, casting="unsafe")
        (low.view(np.uint32) != high.view(np.uint32)).any(axis=1, out=differ[part])
    rows = np.flatnonzero(differ)
    vectors[rows] = in_order(rotation.T, _words(wide, indices[rows])) * scales[rows]
    return vectors


def reach(rotation: Array, length: float) -> float:
    """How far two orders of the sums of Q x or Qᵀ x may lie apart, for x up to this length.

    A sum of d products of rounded factors is off by at most d 2^-53 Σ |q x| in any order, fused
    or not, but for terms of second order; Σ |q x| is at most the length of q times that of x.
    8 more terms make up for those and for the roundings here, 2^-1000 for what underflows.
    """
    longest = max(_longest(rotation), _longest(rotation.T))
    return (len(rotation) + 8) * 2.0**-52 * longest * length + 2.0**-1000


def in_order(matrix: Array, vectors: Array) -> Array:
    """Matrix times every row of `vectors`, each sum from its first term to its last."""
    count, dim = vectors.shape
    result = np.empty((count, dim))
    scratch = np.empty((dim, TILE))
    for start in range(0, count, TILE):
        tile = np.ascontiguousarray(vectors[start : start + TILE].T)  # sums side by side
        total = np.zeros(tile.shape)
        product = scratch[:, : tile.shape[1]]
        for at in range(dim):
            np.multiply(matrix[:, at, None], tile[at], out=product)
            total += product
        result[start : start + TILE] = total.T
    return result


def _nearest(units: Array, rotation: Array, codewords: Array) -> NDArray[np.uint32]:
    """The codewords nearest to the blocks of Q x, for every row x, no longer than about 1."""
    count, dim = units.shape
    width = codewords.shape[1]
    off = reach(rotation, 1.01)
    weights = weights_of(codewords)
    indices = np.empty((count, dim // width), np.uint32)
    doubtful = [np.empty(0, np.intp)]
    for at in range(0, count, TILE):
        blocks = (units[at : at + TILE] @ rotation.T).reshape(-1, width)
        found, unsure = narrowed(blocks, codewords, weights, off)
        indices[at : at + TILE] = found.reshape(-1, dim // width)
        doubtful.append(unsure + at * (dim // width))
    rows, places = np.divmod(np.concatenate(doubtful), dim // width)
    chosen, inverse = np.unique(rows, return_inverse=True)
    turned = in_order(rotation, units[chosen]).reshape(len(chosen), dim // width, width)
    indices[rows, places] = nearest_exactly(turned[inverse, places], codewords)
    return indices


def _words(codewords: Array, indices: NDArray[np.uint32]) -> Array:
    """The codewords of each row of indices, one behind the other."""
    count, blocks = indices.shape
    words = codewords.take(indices.astype(np.intp), axis=0)
    return words.reshape(count, blocks * codewords.shape[1])


def _longest(rows: Array) -> float:
    """The length of the longest row, in no stated order: it makes bounds, and no byte."""
    return float(np.sqrt(((rows * rows) @ np.ones(rows.shape[1])).max()))


def _finite(vectors: NDArray[np.float32]) -> tuple[Array, NDArray[np.uint8]]:
    """Vectors in float64, zeros for those that are not finite, and which those are."""
    wide = vectors.astype(np.float64)
    broken = ~np.isfinite(wide).all(axis=1)
    wide[broken] = 0.0
    refusals = np.zeros(len(wide), np.uint8)
    refusals[broken] = Refusal.NON_FINITE
    return wide, refusals


def _norms(vectors: Array) -> Array:
    total = np.zeros(len(vectors))
    for squares in np.ascontiguousarray((vectors * vectors).T):  # sums side by side
        total += squares
    return np.sqrt(total)


def _halves(norms: Array) -> NDArray[np.uint16]:
    """Norms as bits of float16, by way of float32; 0 where they are too large or too small."""
    with np.errstate(over="ignore", under="ignore"):
        halves = norms.astype(np.float32).astype(np.float16)
    return np.where(np.isfinite(halves), halves, 0).astype(np.float16).view(np.uint16)

"""orbits: where training begins: points of a radial-angular design, and mirrors near them.

Spec: formats/codebooks.md, section "How they were made" (not normative).

    radius      quantile of the companded law, R² ~ Beta(k/2, (D - k - 2)/2 · k/(k + 2) + 1)
    direction   golden angle for k = 2, else Roberts' Kronecker sequence
    mirror      where a step of the symmetry changes nothing: x_i = 0, or x_i = x_j

A base on mirrors has a smaller orbit. Not on the way to a byte, as all of `training`.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.symmetry import Symmetry


@cache
def design(channels: int, block: int, size: int, skip: int) -> NDArray[np.float64]:
    """Radial-angular points; directions from the one after `skip` on."""
    radius = np.linspace(0, 1, 1 << 16)
    beta = (channels - block - 2) / 2 * block / (block + 2)
    density = radius ** (block - 1) * (1 - radius * radius) ** beta
    law = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    radii = np.interp((np.arange(size) + 0.5) / size, law / law[-1], radius)
    return directions(block, size, skip) * (radii * math.sqrt(channels))[:, None]


def directions(block: int, size: int, skip: int) -> NDArray[np.float64]:
    """Evenly spread unit vectors."""
    at = np.arange(skip, skip + size)
    if block == 2:
        angle = 2 * math.pi * at * (1 - 2 / (1 + math.sqrt(5)))
        return np.column_stack([np.cos(angle), np.sin(angle)])
    root = 1.5
    for _ in range(64):  # of x**(k + 1) = x + 1
        root = (root + 1) ** (1 / (block + 1))
    places = ((at[:, None] + 0.5) * root ** -np.arange(1.0, block + 1)) % 1
    normal = np.vectorize(NormalDist().inv_cdf)(np.clip(places, 1e-12, 1 - 1e-12))
    return np.asarray(normal / np.linalg.norm(normal, axis=1)[:, None])


def snapped(symmetry: Symmetry, base: NDArray[np.float64], near: float) -> NDArray[np.float64]:
    """A folded point, put on the mirrors that are nearer than `near`."""
    base = base.copy()
    start = 0
    for length in symmetry.runs:
        groups = [[start]]
        for at in range(start + 1, start + length):
            if base[groups[-1]].mean() - base[at] < near * math.sqrt(2):
                groups[-1].append(at)
            else:
                groups.append([at])
        for group in groups:
            base[group] = 0 if base[group].mean() < near else base[group].mean()
        start += length
    return base


def mirror(symmetry: Symmetry, base: NDArray[np.floating]) -> NDArray[np.float32]:
    """The projection onto all mirrors that a base lies on."""
    found = np.eye(len(base), dtype=np.float32)
    if symmetry.runs:
        found[base == 0] = 0
    for first, second in _runs(symmetry):
        for value in np.unique(base[first:second]):
            group = first + np.flatnonzero((base[first:second] == value) & (value != 0))
            found[np.ix_(group, group)] = 1 / max(1, len(group))
    return found


def orbit_size(symmetry: Symmetry, base: NDArray[np.floating]) -> int:
    """How many codewords a base makes."""
    if not symmetry.runs:
        return 1
    size = 1 << int(np.count_nonzero(base))
    for first, second in _runs(symmetry):
        size *= math.factorial(second - first)
        for same in Counter(base[first:second].tolist()).values():
            size //= math.factorial(same)
    return size


def _runs(symmetry: Symmetry) -> list[tuple[int, int]]:
    return list(pairwise(np.cumsum([0, *symmetry.runs]).tolist()))

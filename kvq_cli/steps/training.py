"""training: codebooks for blocks of a rotated row, by Lloyd's method under a symmetry.

Spec: formats/codebooks.md, section "How they were made" (not normative: codewords are).

Training is no part of the way to a byte. It uses float sums, logarithms and NumPy's random
numbers, so another machine may find other codewords; what counts is what was stored.

    block     k coordinates of sqrt(D) · u, u uniform on the unit sphere of D channels
    start     points of a design (`orbits`), folded, put on mirrors near by, until orbits are N
    Lloyd     bases become the means of the folded blocks nearest to them; on mirrors they stay
    climb     a few bases are drawn anew; what is better after Lloyd is kept
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.codebooks import Codebook
from kvq_cli.numerics.nearest import grid
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symmetry import Symmetry, expand
from kvq_cli.record import record
from kvq_cli.steps.orbits import design, mirror, orbit_size, snapped

Points = NDArray[np.float32]  # (n, k)

_POOL: Final = 1 << 13  # points of a design to draw from
_TRIES: Final = 3000
_CHUNK: Final = 1 << 12
_STILL: Final = 1e-4  # of z; units that it is rounded to are 2**-7 and more


@record
class Task:
    """Which codebook is wanted, and the symmetry it shall have."""

    channels: int
    block: int
    size: int
    symmetry: Symmetry

    def blocks(self, count: int, seed: int) -> Points:
        """Independent blocks of the law, unfolded."""
        random = np.random.Generator(np.random.PCG64([self.channels, self.block, count, seed]))
        normal = random.standard_normal((count, self.block))
        rest = random.chisquare(self.channels - self.block, count)
        norms = (normal * normal).sum(axis=1) + rest
        found: Points = (normal * np.sqrt(self.channels / norms)[:, None]).astype(np.float32)
        return found

    def folded(self, count: int, seed: int) -> Points:
        """Blocks as bases see them."""
        points = np.ascontiguousarray(self.blocks(count, seed).T)
        self.symmetry.fold(points, np.empty(count, np.intp), Scratch())
        return np.ascontiguousarray(points.T)


@record
class Bases:
    """Bases in training, and the mirrors that each of them lies on."""

    points: Points  # (B, k)
    mirrors: NDArray[np.float32]  # (B, k, k): projections

    def moved(self, points: NDArray[np.floating]) -> Bases:
        found = np.einsum("bij,bj->bi", self.mirrors, points)
        return Bases(found.astype(np.float32), self.mirrors)


def assigned(blocks: Points, bases: Points) -> NDArray[np.intp]:
    """The nearest base of each folded block."""
    found = np.empty(len(blocks), np.intp)
    half = (bases * bases).sum(axis=1) / 2
    for start in range(0, len(blocks), _CHUNK):
        part = slice(start, start + _CHUNK)
        found[part] = (blocks[part] @ bases.T - half).argmax(axis=1)
    return found


def error(blocks: Points, bases: Points) -> float:
    """The relative squared error of folded blocks."""
    missed = blocks - bases[assigned(blocks, bases)]
    return float(np.vdot(missed, missed) / np.vdot(blocks, blocks))


def lloyd(blocks: Points, bases: Bases, rounds: int) -> Bases:
    """So many rounds, or until nothing moves; a base that no block is nearest to stays."""
    for _ in range(rounds):
        nearest = assigned(blocks, bases.points)
        counts = np.bincount(nearest, minlength=len(bases.points))
        sums = np.column_stack(
            [np.bincount(nearest, weights=axis, minlength=len(counts)) for axis in blocks.T]
        )
        means = sums / np.maximum(counts, 1)[:, None]
        before = bases.points
        bases = bases.moved(np.where(counts[:, None] > 0, means, before))
        if np.abs(bases.points - before).max() < _STILL:
            break
    return bases


def filled(
    task: Task, kept: Bases | None, near: float, random: np.random.Generator
) -> Bases | None:
    """Bases drawn from a design until orbits hold N codewords, beside those that are kept."""
    skip = int(random.integers(64)) * _POOL
    pool = design(task.channels, task.block, _POOL, skip).T.copy()
    task.symmetry.fold(pool, np.empty(_POOL, np.intp), Scratch())
    points = [] if kept is None else list(kept.points)
    room = task.size - sum(orbit_size(task.symmetry, each) for each in points)
    for turn, at in enumerate(random.permutation(_POOL)[:_TRIES]):
        if room == 0:
            break
        # What is left in the end has to be filled exactly: small orbits lie on more mirrors.
        base = snapped(task.symmetry, pool[:, at], near * (1 + 4 * turn / _TRIES))
        size = orbit_size(task.symmetry, base)
        if size <= room and all(np.abs(base - each).max() > 1e-6 for each in points):
            points.append(base.astype(np.float32))
            room -= size
    if room:
        return None
    found = np.array(points, np.float32)
    return Bases(found, np.array([mirror(task.symmetry, each) for each in found]))


def climb(
    task: Task, core: Bases | None, *, count: int, turns: int, seed: int
) -> tuple[float, Bases]:
    """The best bases of so many turns, on so many blocks, and their error on these.

    A quarter of the turns begins anew, with the bases of `core` where there are any.
    """
    if not task.symmetry.runs and task.size > _TRIES:
        raise ValueError(f"{task.size} codewords without symmetry, at most {_TRIES} are trained")
    random = np.random.Generator(np.random.PCG64([seed, task.block, task.size]))
    blocks = task.folded(count, seed)
    spacing = 4.0 * task.size ** (-1 / task.block)
    best, least = None, math.inf
    for turn in range(turns):
        kept = core
        if best is not None and turn > turns // 4:
            order = random.permutation(len(best.points))[random.integers(1, 4) :]
            kept = Bases(best.points[order], best.mirrors[order])
        tried = filled(task, kept, random.uniform(0.03, 0.4) * spacing, random)
        if tried is None:
            continue
        tried = lloyd(blocks, tried, 12)
        found = error(blocks, tried.points)
        if found < least:
            best, least = tried, found
    if best is None:
        raise ValueError("no union of orbits was found that has as many codewords")
    return least, best


def train(task: Task, *, blocks: int = 200_000, turns: int = 100, seed: int = 0) -> Codebook:
    """A codebook from nothing, on so many blocks; ValueError where orbits do not add up to N."""
    _, bases = climb(task, None, count=blocks, turns=turns, seed=seed)
    fresh = task.folded(max(2 * blocks, 400 * task.size), seed + 1)
    return Codebook.of(rounded(task, lloyd(fresh, bases, 60)))


def rounded(task: Task, bases: Bases) -> NDArray[np.int16]:
    """The codebook of bases on the grid, in the order of the spec."""
    units = np.rint(bases.points * np.float32(2.0 ** grid(task.block))).astype(int)
    rows = sorted({tuple(row) for row in units.tolist()}, key=lambda row: (_square(row), row))
    codewords = expand(task.symmetry, rows)
    if codewords.shape != (task.size, task.block):
        raise ValueError(f"codewords meet on the grid: {len(codewords)} are left")
    return codewords


def _square(row: tuple[int, ...]) -> int:
    return sum(value * value for value in row)


def measured(book: Codebook, blocks: Points) -> float:
    """The relative squared error of blocks, as an encoder would code them."""
    unit = np.float32(2.0 ** grid(blocks.shape[1]))
    units = blocks * unit
    indices = np.empty(len(blocks), np.uint16 if len(book.points) > 1 << 8 else np.uint8)
    book.search(units, indices, Scratch())
    missed = (units - book.points[indices]).astype(np.float64)
    return float(np.vdot(missed, missed) / np.vdot(units.astype(np.float64), units))

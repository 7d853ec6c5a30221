"""make_levels: the Lloyd-Max levels of a coordinate of a random unit vector, frozen.

    python tools/make_levels.py            write kvq_cli/tables/levels.bin and its copy in formats/
    python tools/make_levels.py --check    compare both with what would be written

For every D that is a multiple of 8 up to 640 and 1 to 8 bits: the quantiser of least mean squared
error for z = sqrt(D) · u, u one coordinate of a unit vector of D dimensions, whose density is

    f(u) = (1 - u²)^((D - 3) / 2) · constant

Its levels are the means of f over their cells, its thresholds the middles between levels. That
system of equations is solved by Newton's method, by Gauss-Legendre sums in float64 that are good
to 13 digits; what is stored is positive, ascending, in units of 2^-12.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = (
    ROOT / "kvq_cli" / "tables" / "levels.bin",
    ROOT / "formats" / "tables" / "levels.bin",
)
LARGEST: Final = 640
STEP: Final = 8
BITS: Final = range(1, 9)
UNIT: Final = 4096
NODES: Final = 24  # of a sum over one cell
TOLERANCE: Final = 1e-12

Numbers = NDArray[np.float64]


def levels(order: int, bits: int) -> Numbers:
    """The positive levels, ascending, as multiples of 1 / sqrt(D) in u."""
    count = 1 << (bits - 1)
    found = _first(order, count)
    for _ in range(200):
        thresholds = np.concatenate(([0.0], (found[1:] + found[:-1]) / 2, [_end(order)]))
        mass, mean = _cells(thresholds, order)
        step = np.linalg.solve(_slopes(thresholds, mass, mean, order), mean - found)
        # A full step may leave the order of levels; a part of it never leaves for good.
        while np.any(np.diff(found + step) <= 0) or found[0] + step[0] <= 0:
            step = step / 2
        found = found + step
        if float(np.abs(step).max()) < TOLERANCE:
            return found
    raise SystemExit(f"no convergence for D = {order}, {bits} bits")


def density(z: Numbers, order: int) -> Numbers:
    """Of z = sqrt(D) · u, but for a constant; zero beyond sqrt(D)."""
    inside = np.maximum(1 - z * z / order, 0)
    found: Numbers = inside ** ((order - 3) / 2)
    return found


def _end(order: int) -> float:
    return float(np.sqrt(order))


@cache
def _rule() -> tuple[Numbers, Numbers]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def _cells(thresholds: Numbers, order: int) -> tuple[Numbers, Numbers]:
    """Mass and mean of each cell; the last one, which is long, in pieces."""
    pieces = np.linspace(thresholds[-2], thresholds[-1], 65)
    edges = np.concatenate((thresholds[:-1], pieces[1:]))
    nodes, weights = _rule()
    half = np.diff(edges)[:, None] / 2
    z = edges[:-1, None] + half * (1 + nodes)
    weighed = density(z, order) * weights * half
    mass, first = weighed.sum(axis=1), (weighed * z).sum(axis=1)
    cells = len(thresholds) - 1
    mass = np.concatenate((mass[: cells - 1], [mass[cells - 1 :].sum()]))
    first = np.concatenate((first[: cells - 1], [first[cells - 1 :].sum()]))
    return mass, first / mass


def _slopes(thresholds: Numbers, mass: Numbers, mean: Numbers, order: int) -> Numbers:
    """Minus the derivatives of `mean - levels` by the levels: three diagonals."""
    edge = density(thresholds, order)
    lower = np.concatenate(([0.0], edge[1:-1] * (mean[1:] - thresholds[1:-1]) / mass[1:] / 2))
    upper = np.concatenate((edge[1:-1] * (thresholds[1:-1] - mean[:-1]) / mass[:-1] / 2, [0.0]))
    slopes = np.diag(1 - lower - upper)
    slopes -= np.diag(lower[1:], -1) + np.diag(upper[:-1], 1)
    return slopes


def _first(order: int, count: int) -> Numbers:
    """Levels as dense as the cube root of the density: Bennett's rule for many levels."""
    z = np.linspace(0, _end(order), 200_001)
    mass = np.concatenate(([0.0], np.cumsum(np.cbrt(density((z[1:] + z[:-1]) / 2, order)))))
    places = (np.arange(count) + 0.5) / count * mass[-1]
    return np.interp(places, mass, z)


def frozen() -> bytes:
    """One row of 255 integers a D: 1 of 1 bit, 2 of 2 bits, …, 128 of 8 bits."""
    rows = [
        np.concatenate([np.rint(levels(order, bits) * UNIT) for bits in BITS])
        for order in range(STEP, LARGEST + 1, STEP)
    ]
    return np.array(rows).astype("<i2").tobytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 on a difference"
    )
    options = parser.parse_args()
    made = frozen()
    if options.check:
        wrong: list[Any] = [path for path in TARGETS if path.read_bytes() != made]
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not what this tool makes")
        return int(bool(wrong))
    for path in TARGETS:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

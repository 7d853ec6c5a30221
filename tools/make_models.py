"""make_models: the frozen probability models of quantised transform coefficients.

    python tools/make_models.py            write kvq_cli/tables/models.bin and its copy in formats/
    python tools/make_models.py --check    compare both with what would be written

A coefficient in quantiser steps is y, of a generalised Gaussian density of standard deviation s:

    f(y) = exp(-(|y| / a)^beta) · constant      a = s · sqrt(gamma(1 / beta) / gamma(3 / beta))

It is coded as q = 0 for |y| < 0.56, else as y rounded. The models are these families, for a few
beta and a ladder of s, in parts of 4096; they were not fitted to any data. Masses of cells are
Gauss-Legendre sums in float64. The table's format: formats/codecs/README.md, section "Models".
"""

from __future__ import annotations

import argparse
import struct
from functools import cache
from itertools import pairwise
from math import gamma, log2
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROOT: Final = Path(__file__).parents[1]
TARGETS: Final = (
    ROOT / "kvq_cli" / "tables" / "models.bin",
    ROOT / "formats" / "tables" / "models.bin",
)
WHOLE: Final = 4096  # what frequencies sum to
ZERO: Final = 0.56  # half the cell of 0
SHAPES: Final = (1.0, 1.5, 2.0)  # beta
RATIO: Final = 1.16  # of s, from one model to the next, at most
RARER: Final = 1.6  # ratio of the probabilities of q != 0, likewise
RAREST: Final = 1 / 2048  # probability of q != 0
WIDEST: Final = 16.0  # s, without a shift
WIDE: Final = tuple(8.0 * 2 ** ((2 * third + 1) / 6) for third in range(3))  # s, above a shift
SHIFTS: Final = range(1, 13)
KEPT: Final = 2.0**-17  # a rarer q is no symbol of its own
LEAST: Final = 2  # but these are
CELLS: Final = 400  # looked at
NODES: Final = 24
PIECES: Final = 8  # of a cell
COST: Final = 64  # units of a bit

Numbers = NDArray[np.float64]


def cells(shape: float, scale: float, zero: float, count: int) -> tuple[Numbers, Numbers]:
    """Probabilities of q = 0, 1, …, count - 1 of one sign, and the mean of |y| in each."""
    edges = np.concatenate(([0.0, zero], np.arange(1, count) + 0.5))
    width = scale * np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    nodes, weights = _rule()
    fine = np.concatenate([np.linspace(*pair, PIECES + 1)[:-1] for pair in pairwise(edges)])
    half = np.diff(np.append(fine, edges[-1]))[:, None] / 2
    y = fine[:, None] + half * (1 + nodes)
    dense = np.exp(-((y / width) ** shape)) * shape / (2 * width * gamma(1 / shape))
    mass = (dense * weights * half).sum(axis=1).reshape(count, PIECES).sum(axis=1)
    first = (dense * y * weights * half).sum(axis=1).reshape(count, PIECES).sum(axis=1)
    return mass, first / np.maximum(mass, 1e-300)


@cache
def _rule() -> tuple[Numbers, Numbers]:
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return nodes, weights


def ladder(shape: float) -> list[float]:
    """Values of s, each the largest that both ratios allow; the last is WIDEST or more."""
    scale = 0.05
    while _nonzero(shape, scale) < RAREST:
        scale *= 1.01
    found = [scale]
    while found[-1] < WIDEST:
        scale = found[-1]
        end, most = scale * RATIO, RARER * _nonzero(shape, scale)
        while scale < end and _nonzero(shape, scale) < most:
            scale *= 1.002
        found.append(min(scale, end))
    return found


def _nonzero(shape: float, scale: float) -> float:
    return 1 - 2 * float(cells(shape, scale, ZERO, 2)[0][0])


def frequencies(mass: Numbers) -> NDArray[np.int64]:
    """Of q = 0, 1, …, A and of the escape: those of both signs and the escape sum to WHOLE."""
    most = max(LEAST, int(np.flatnonzero(mass > KEPT)[-1]))
    one_sided = np.append(mass[: most + 1], 0.0)
    one_sided[0] *= 2
    times = np.array([1] + [2] * most + [1])
    one_sided[-1] = max(0.0, 1 - float((one_sided * times).sum()))
    factor = float(WHOLE)
    for _ in range(60):
        found = np.maximum(np.rint(one_sided * factor), 1)
        factor *= WHOLE / float((found * times).sum())
    # What rounding left over: a part each to the commonest.
    left = WHOLE - int((found * times).sum())
    found[0] += left % 2
    found[1 : 1 + abs(left // 2)] += np.sign(left // 2)
    return found.astype(np.int64)


def shortfalls(mass: Numbers, means: Numbers) -> list[int]:
    """16 |q| less the mean of 16 |y|, for |q| = 1, 2 and all from 3 on, inside the cell."""
    offsets = 16 * (np.arange(len(mass)) - means)
    last = float((offsets[3:] * mass[3:]).sum() / mass[3:].sum())
    return [max(-7, min(7, round(offset))) for offset in (offsets[1], offsets[2], last)]


def narrow() -> dict[tuple[int, ...], list[int]]:
    """Tables without a shift, each once, and their shortfalls."""
    found: dict[tuple[int, ...], list[int]] = {}
    for shape in SHAPES:
        for scale in ladder(shape):
            mass, means = cells(shape, scale, ZERO, CELLS)
            found.setdefault(tuple(frequencies(mass).tolist()), shortfalls(mass, means))
    return found


def frozen() -> bytes:
    """Counts, classes, tables, costs."""
    found = narrow()
    tables = [*found]
    classes = [(0, 0, 0, 0, 0), *((at, 0, *lacks) for at, lacks in enumerate(found.values()))]
    for shape in SHAPES:
        for scale in WIDE:
            classes += [(len(tables), shift, 0, 0, 0) for shift in SHIFTS]
            tables.append(tuple(frequencies(cells(shape, scale, 0.5, CELLS)[0]).tolist()))
    costs = [0] + [round(COST * log2(WHOLE / frequency)) for frequency in range(1, WHOLE)]
    parts = [struct.pack("<HH", len(classes), len(tables))]
    parts += [struct.pack("<BBbbb", *one) for one in classes]
    parts += [struct.pack(f"<H{len(one)}H", len(one) - 2, *one) for one in tables]
    return b"".join([*parts, struct.pack(f"<{WHOLE}H", *costs)])


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
        path.write_bytes(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

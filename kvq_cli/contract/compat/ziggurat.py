"""ziggurat: the tables of 256 layers under the normal and the exponential density.

Spec: formats/fibquant-compat.md, section "Ziggurat tables".

    x[0] = V / f(R)    x[1] = R    x[i] = f⁻¹(V / x[i-1] + f(x[i-1]))    x[256] = 0
    normal             f(x) = exp(-x² / 2)     f⁻¹(y) = √(-2 ln y)
    exponential        f(x) = exp(-x)          f⁻¹(y) = -ln y

Every step is rounded to float64, exp and ln correctly: by decimal arithmetic, not by the
machine's library, so the tables are the same everywhere. They take 0.1 s, once a process.
"""

from __future__ import annotations

import decimal
import functools
import math
from collections.abc import Callable
from typing import Final

from kvq_cli.record import record

LAYERS: Final = 256
NORMAL_R: Final = 3.6541528853610088
NORMAL_V: Final = 0.00492867323399
EXPONENTIAL_R: Final = 7.69711747013104972
EXPONENTIAL_V: Final = 0.0039496598225815571993

# Half a unit in the last of 53 bits needs 17 digits; 40 decide every case here.
_DECIMAL: Final = decimal.Context(prec=40)


@record
class Table:
    """Right edges of the layers, and the density there; 257 entries each."""

    edges: tuple[float, ...]
    heights: tuple[float, ...]


@functools.cache
def normal() -> Table:
    return _table(
        NORMAL_R,
        NORMAL_V,
        lambda x: _exp(-x * x / 2.0),
        lambda y: math.sqrt(-2.0 * _ln(y)),
    )


@functools.cache
def exponential() -> Table:
    return _table(EXPONENTIAL_R, EXPONENTIAL_V, lambda x: _exp(-x), lambda y: -_ln(y))


def _table(
    tail: float,
    area: float,
    density: Callable[[float], float],
    inverse: Callable[[float], float],
) -> Table:
    edges = [area / density(tail), tail]
    while len(edges) < LAYERS:
        edges.append(inverse(area / edges[-1] + density(edges[-1])))
    edges.append(0.0)
    # The reference holds its tables as text of 18 decimals, which moves a few small heights.
    heights = [float(f"{density(edge):.18f}") for edge in edges]
    return Table(tuple(edges), tuple(heights))


def _exp(value: float) -> float:
    return float(_DECIMAL.exp(decimal.Decimal(value)))


def _ln(value: float) -> float:
    return float(_DECIMAL.ln(decimal.Decimal(value)))

"""choosing: the class that codes a component in the fewest bits.

Spec: formats/codecs/README.md, section "Choosing classes".

Costs are integers, in units of 1/64 bit, and only how often each value occurs matters: counts
times costs are matrix products that no order of adding can change. A component of small values
has its values counted once; others are counted anew for every shift.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.exact import product
from kvq_cli.numerics.models import by_class, models
from kvq_cli.numerics.scratch import Scratch

COST: Final = 64  # units of a bit
ESCAPE_BITS: Final = 32
NEAR: Final = 128  # values from -NEAR to NEAR - 1 are counted one by one: more than any table has
_WIDTH: Final = 2 * NEAR
_LARGEST: Final = 1 << 12  # more than any cost


def choose(q: NDArray[np.int32], scratch: Scratch) -> NDArray[np.uint8]:
    """The class of least cost of each component of (C, T), the lowest of several."""
    far = (q.max(axis=1) >= NEAR) | (q.min(axis=1) < -NEAR)
    classes = np.empty(len(q), np.uint8)
    near = q if not far.any() else q[~far]
    costs = product(_counts(near, scratch), _costs(_held(q.shape[1]))[1])
    classes[~far] = costs.argmin(axis=1) + 1
    if far.any():
        classes[far] = _choose_far(q[far], scratch)
    classes[~q.any(axis=1)] = 0
    return classes


def _choose_far(q: NDArray[np.int32], scratch: Scratch) -> NDArray[np.intp]:
    shifts = by_class().shifts[1:]
    of_tables = _costs(_held(q.shape[1]))[0]
    costs = np.empty((len(q), len(shifts)))
    for shift in np.unique(shifts).tolist():
        # Any value beyond the tables will do for those that lie further out.
        values = _shifted(q.astype(np.int64), shift).clip(-NEAR, NEAR - 1).astype(np.int32)
        some = shifts == shift
        whole = product(_counts(values, scratch), of_tables[:, some])
        costs[:, some] = whole + COST * shift * q.shape[1]
    found: NDArray[np.intp] = costs.argmin(axis=1) + 1
    return found


def _counts(q: NDArray[np.int32], scratch: Scratch) -> NDArray[Any]:
    """How often each value is there, (C, _WIDTH)."""
    places = scratch.take("choosing.places", q.shape, np.intp)
    first = np.arange(NEAR, len(q) * _WIDTH, _WIDTH)
    np.add(q, first[:, None], out=places)
    counts = np.bincount(places.reshape(-1), minlength=len(q) * _WIDTH)
    return counts.reshape(len(q), _WIDTH).astype(_held(q.shape[1]))


def _held(tokens: int) -> str:
    """A float type that no sum of so many costs is rounded in."""
    return "f4" if tokens * _LARGEST <= 1 << 24 else "f8"


def _shifted(q: NDArray[np.int64], shift: int) -> NDArray[np.int64]:
    return q if not shift else (q + (1 << (shift - 1))) >> shift


@cache
def _costs(held: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Of every value in every class but the first, (_WIDTH, classes): of h alone, and of q."""
    known = models()
    values = np.arange(-NEAR, NEAR)
    of_tables, of_values = [], []
    for model in known.classes[1:]:
        costs = known.costs[known.frequencies[model.table]].astype(held)
        costs[-1] += COST * ESCAPE_BITS
        of_tables.append(costs[_symbols(values, costs)])
        of_values.append(costs[_symbols(_shifted(values, model.shift), costs)] + COST * model.shift)
    return np.stack(of_tables, axis=1), np.stack(of_values, axis=1)


def _symbols(values: NDArray[np.int64], costs: NDArray[Any]) -> NDArray[np.int64]:
    """Places of values among the symbols of a table, the last of which is the escape."""
    escape = len(costs) - 1
    places = values + escape // 2
    return np.where((places < 0) | (places >= escape), escape, places)

"""lanes: the states of a coder, and the views of them that its steps take.

Spec: formats/codecs/README.md, section "Coefficients".

    lane i    the state x of tokens i, i + lanes, …; 2**16 ≤ x < 2**32

A step is some ten calls on one row of tokens, and the calls cost more than the numbers in them.
So their arguments are made once for a page, constants are whole rows, which NumPy takes faster
than numbers, and states are 64-bit words, which look-ups take as they are.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.models import DIGITS, DIVISION, WHOLE
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

MAX_LANES: Final = 512
SYMBOLS: Final = 512  # of a lane, zeros and all, that are worth one of its own
LOW: Final = 1 << 16  # the least state, and the first one of an encoder

Words = NDArray[np.uint64]


def _constant(number: int) -> Words:
    return np.full(MAX_LANES, number, np.uint64)


_LOW, _MASK, _DIGITS = _constant(LOW), _constant(WHOLE - 1), _constant(DIGITS)
_DIVISION = _constant(DIVISION)


def lanes_for(tokens: int, dimensions: int) -> int:
    """How many states a page has: a lane takes two bytes of its own, so few have many symbols."""
    return max(1, min(tokens, MAX_LANES, tokens * dimensions // SYMBOLS))


@record(eq=False)
class Row:
    """One row of tokens: the last one of a page may have fewer than there are lanes."""

    tokens: slice
    states: Words
    lower: NDArray[np.uint16]  # bits 0 to 15 of the states
    upper: NDArray[np.uint16]  # bits 16 to 31
    chosen: NDArray[np.bool_]
    spare: Words
    other: Words
    low: Words
    mask: Words
    digits: Words
    division: Words


def rows_of(states: Words, tokens: int, scratch: Scratch) -> list[Row]:
    """The rows of a page; `states` are little-endian."""
    lanes = len(states)
    halves = states.view("<u2")
    chosen = scratch.take("lanes.chosen", (lanes,), np.bool_)
    spare = scratch.take("lanes.spare", (lanes,), np.uint64)
    other = scratch.take("lanes.other", (lanes,), np.uint64)
    found = []
    for start in range(0, tokens, lanes):
        stop = min(start + lanes, tokens)
        row = slice(0, stop - start)
        end = 4 * row.stop
        found.append(
            Row(
                tokens=slice(start, stop),
                states=states[row],
                lower=halves[0:end:4],
                upper=halves[1:end:4],
                chosen=chosen[row],
                spare=spare[row],
                other=other[row],
                low=_LOW[row],
                mask=_MASK[row],
                digits=_DIGITS[row],
                division=_DIVISION[row],
            )
        )
    return found

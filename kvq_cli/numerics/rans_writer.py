"""rans_writer: the steps of the encoder, from the last one to the first.

Spec: formats/codecs/README.md, section "Coefficients".

    give     of x ≥ f * 2**20 the lower half is put before the stream, and x = x >> 16
    step     x = x + floor(x / f) * (4096 - f) + start, which is
             floor(x / f) * 4096 + (x mod f) + start

Parameters of symbols are looked up for several components at once, into arrays that the views
of every step are made for beforehand.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.lanes import Row, Words, rows_of
from kvq_cli.numerics.models import WORD, encoding
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symbols import Low, Symbols

_LOOKED_UP: Final = 1 << 13  # symbols at once: what a core's own cache holds
_MOST: Final = 64  # components


class Writer:
    """From the last component to the first; the stream is filled from its end."""

    def __init__(self, symbols: Symbols, lanes: int, scratch: Scratch) -> None:
        components, tokens = symbols.places.shape
        self.states = scratch.take("rans.states", (lanes,), "<u8")
        symbols.head.join(symbols.digits, self.states)
        self.block = max(1, min(_LOOKED_UP // tokens, _MOST))
        self._symbols = symbols
        # A step gives at most one word a lane, and a component with a shift takes two steps.
        self._stream = scratch.take("rans.stream", (2 * components * tokens,), np.uint16)
        self._at = len(self._stream)
        self._places = scratch.take("rans.places", (self.block, tokens), np.int64)
        self._parameters = scratch.take("rans.parameters", (4, self.block, tokens), np.uint64)
        rows = rows_of(self.states, tokens, scratch)
        self._rows = [
            [(row, *self._parameters[:, place, row.tokens]) for row in reversed(rows)]
            for place in range(self.block)
        ]

    def put(self, start: int) -> None:
        """A block of components."""
        places = self._symbols.places[start : start + self.block]
        wide = self._places[: len(places)]
        np.copyto(wide, places)
        table = encoding()
        looked_up = (table.limits, table.inverses, table.rests, table.starts)
        for numbers, found in zip(looked_up, self._parameters, strict=True):
            numbers.take(wide, None, found[: len(places)], "clip")
        for place in reversed(range(len(places))):
            rows = self._rows[place]
            if start + place in self._symbols.head.components:
                rows = rows[:-1]
            self._put(rows, self._symbols.low.get(start + place))

    def _put(self, rows: list[tuple[Any, ...]], low: Low | None) -> None:
        """A component, each row of it before its low bits, which come first here."""
        for row, limit, inverse, rest, first in rows:
            if low is not None:
                self._put_low(row, low)
            x, spare = row.states, row.spare
            self._give(row, limit)
            np.multiply(x, inverse, spare)
            np.right_shift(spare, row.division, spare)
            np.multiply(spare, rest, spare)
            np.add(x, spare, x)
            np.add(x, first, x)

    def _put_low(self, row: Row, low: Low) -> None:
        row.other.fill(1 << (2 * WORD - low.shift))
        self._give(row, row.other)
        np.left_shift(row.states, low.shift, row.states)
        np.bitwise_or(row.states, low.bits[row.tokens], row.states)

    def _give(self, row: Row, limits: Words) -> None:
        """The lower half of states that would become too large."""
        np.greater_equal(row.states, limits, row.chosen)
        lanes = row.chosen.nonzero()[0]
        start = self._at - lanes.size
        self._stream[start : self._at] = row.lower[lanes]
        row.lower[lanes] = row.upper[lanes]
        row.upper[lanes] = 0
        self._at = start

    def stream(self) -> NDArray[np.uint16]:
        return self._stream[self._at :]

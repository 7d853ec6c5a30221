"""rans_reader: the steps of the decoder, from the first one to the last.

Spec: formats/codecs/README.md, section "Coefficients".

    step     x = f * (x >> 12) + (x & 4095) - start
    fetch    of x < 2**16: x = x * 2**16 + the next word

What a step found is left as slots, x & 4095; one look-up makes a component's numbers of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.lanes import LOW, MAX_LANES, Row, rows_of
from kvq_cli.numerics.models import ESCAPE, Model, decoding, models, of_symbols, values_of
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.symbols import Head, fill_escapes


class Reader:
    """From the first component to the last."""

    def __init__(
        self,
        states: NDArray[np.uint32],
        words: NDArray[np.uint16],
        tokens: int,
        scratch: Scratch,
    ) -> None:
        fits = 1 <= len(states) <= min(tokens, MAX_LANES)
        if not fits or int(states.min()) < LOW:
            raise CodecError("E502", "states are not those of an encoder")
        self._states = scratch.take("rans.states", states.shape, "<u8")
        np.copyto(self._states, states)
        self._words, self._at = words, 0
        self._slots = scratch.take("rans.places", (tokens,), np.int64)
        self._low = scratch.take("rans.low", (tokens,), np.uint64)
        self._hidden: list[NDArray[np.int32]] = []  # low bits of escapes
        self._rows = [
            (row, self._slots[row.tokens], self._slots[row.tokens].view(np.uint64))
            for row in rows_of(self._states, tokens, scratch)
        ]

    def get(
        self,
        model: Model,
        values: NDArray[Any],
        out: NDArray[Any],
        *,
        in_head: bool = False,
    ) -> None:
        """A component and its low bits; of the head, all but the first row."""
        table = decoding(model.table)
        for row, slots, bits in self._rows[in_head:]:
            x, frequencies, offsets = row.states, row.spare, row.other
            np.bitwise_and(x, row.mask, bits)
            table.frequencies.take(slots, None, frequencies, "clip")
            table.offsets.take(slots, None, offsets, "clip")
            np.right_shift(x, row.digits, x)
            np.multiply(x, frequencies, x)
            np.add(x, offsets, x)
            self._fetch(row)
            if model.shift:
                self._get_low(row, model.shift)
        values.take(self._slots, None, out, "clip")

    def get_shifted(self, number: int, out: NDArray[Any], unit: int) -> None:
        """A component of a class with a shift."""
        model = models().classes[number]
        q = np.empty(out.shape, np.int32)
        self.get(model, values_of(number, whole=True), q)
        low: NDArray[np.int32] = self._low.astype(np.int32)
        escaped = q == ESCAPE
        q[escaped] = 0
        np.multiply((q << model.shift) + low - (1 << (model.shift - 1)), unit, out=out)
        out[escaped] = ESCAPE
        self._hidden.append(low[escaped])

    def _get_low(self, row: Row, shift: int) -> None:
        np.bitwise_and(row.states, (1 << shift) - 1, self._low[row.tokens])
        np.right_shift(row.states, shift, row.states)
        self._fetch(row)

    def _fetch(self, row: Row) -> None:
        """A word for each state that has become too small."""
        np.less(row.states, row.low, row.chosen)
        lanes = row.chosen.nonzero()[0]
        stop = self._at + lanes.size
        if stop > len(self._words):
            raise CodecError("E502", "there are fewer words than the coefficients take")
        row.upper[lanes] = row.lower[lanes]
        row.lower[lanes] = self._words[self._at : stop]
        self._at = stop

    def finish(self, head: Head, classes: NDArray[np.uint8], out: NDArray[Any]) -> None:
        """The head, and the escapes."""
        for component, digits in zip(head.components, head.part(self._states), strict=True):
            values = of_symbols(int(classes[component]), whole=out.dtype == np.int32)
            out[component, : len(digits)] = values[digits]
        fill_escapes(self._words[self._at :], self._hidden, classes, out)

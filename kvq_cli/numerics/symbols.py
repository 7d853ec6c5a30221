"""symbols: coefficients as symbols of the tables of their classes, low bits and escapes.

Spec: formats/codecs/README.md, section "Coefficients".

    shift s    h = (q + 2**(s - 1)) >> s, and the s low bits of q + 2**(s - 1)
    escape     what lies beyond the alphabet: q, or h, as two words behind the stream
    head       components whose symbols of the first row the first states hold, as digits:
               x = 2**16 + d_1 + n_1 * (d_2 + n_2 * (…)), n symbols in each table
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.models import ESCAPE, LIMIT, WORD, by_class
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record


@record(eq=False)
class Low:
    """Low bits of a component."""

    shift: int
    bits: NDArray[np.uint64]


@record
class Head:
    """Components of the head, and how many symbols their tables have."""

    components: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, classes: NDArray[np.uint8]) -> Head:
        """As many of those without a shift, in their order, as a word holds the digits of."""
        known, components, sizes, left = by_class(), [], [], 1 << WORD
        able = (classes > 0) & (known.shifts[classes] == 0)
        symbols = (2 * known.largest[classes] + 2).tolist()
        for component in np.flatnonzero(able).tolist():
            size = symbols[component]
            if size <= left:
                components.append(component)
                sizes.append(size)
                left //= size
        return cls(tuple(components), tuple(sizes))

    def join(self, digits: NDArray[np.int64], states: NDArray[np.uint64]) -> None:
        """States of digits (components, lanes)."""
        states.fill(0)
        for size, line in zip(reversed(self.sizes), digits[::-1], strict=True):
            np.multiply(states, size, out=states)
            np.add(states, line.view(np.uint64), out=states)
        np.add(states, 1 << WORD, out=states)

    def part(self, states: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The digits; CodecError where no digits give such states."""
        left = states - (1 << WORD)
        digits = np.empty((len(self.sizes), len(states)), np.int64)
        for size, line in zip(self.sizes, digits, strict=True):
            np.copyto(line, left % size, casting="unsafe")
            left //= size
        if bool(left.any()):
            raise CodecError("E502", "states do not end as an encoder begins")
        return digits


@record(eq=False)
class Symbols:
    """Components that are not absent, as an encoder takes them."""

    places: NDArray[np.int32]  # (components, tokens), among the symbols of all tables
    low: dict[int, Low]  # of components with a shift
    escapes: NDArray[np.int32]  # in the order of coding
    head: Head  # by number among these components
    digits: NDArray[np.int64]  # of the head

    @classmethod
    def of(
        cls, q: NDArray[np.int32], classes: NDArray[np.uint8], lanes: int, scratch: Scratch
    ) -> Symbols:
        """Of coefficients (C, T); CodecError where one is 2**20 or more."""
        if int(q.max(initial=0)) >= LIMIT or int(q.min(initial=0)) <= -LIMIT:
            raise CodecError("E501", f"a coefficient is out of range: {LIMIT} steps or more")
        if bool(q[classes == 0].any()):
            raise ValueError("class 0 is for components that are all zeros")
        coded = np.flatnonzero(classes)
        numbers, known = classes[coded], by_class()
        places = scratch.take("symbols.places", (len(coded), q.shape[1]), np.int32)
        np.take(q, coded, axis=0, out=places, mode="clip")
        low = {}
        for row in np.flatnonzero(known.shifts[numbers]).tolist():
            shift = int(known.shifts[numbers[row]])
            places[row] += 1 << (shift - 1)
            low[row] = Low(shift, (places[row] & ((1 << shift) - 1)).astype(np.uint64))
            places[row] >>= shift
        largest = known.largest[numbers][:, None]
        np.add(places, largest, out=places)
        # What lies below the alphabet is a large number without its sign.
        beyond = places.view(np.uint32) > (2 * largest).view(np.uint32)
        escapes = (places - largest)[beyond] if beyond.any() else places[:0, 0]
        np.copyto(places, 2 * largest + 1, where=beyond)
        head = Head.of(numbers)
        digits = places[list(head.components), :lanes].astype(np.int64)
        np.add(places, known.firsts[numbers][:, None], out=places)
        return cls(places, low, escapes, head, digits)


def fill_escapes(
    words: NDArray[np.uint16],
    low: list[NDArray[np.int32]],
    classes: NDArray[np.uint8],
    out: NDArray[Any],
) -> None:
    """Put coefficients where ESCAPE stands in (C, T); `low` are the bits of those with a shift."""
    places = np.flatnonzero(out == ESCAPE)
    if len(words) != 2 * len(places):
        raise CodecError("E502", f"{len(words)} words for {len(places)} escapes")
    if not len(places):
        return
    values = np.ascontiguousarray(words, "<u2").view("<i4").astype(np.int64)
    numbers, known = classes[places // out.shape[1]], by_class()
    if bool((np.abs(values) <= known.largest[numbers]).any()):
        raise CodecError("E502", "an escape stands for a coefficient of the alphabet")
    shifts = known.shifts[numbers]
    q = values << shifts
    moved = shifts > 0
    q[moved] += np.concatenate([*low, np.zeros(0, np.int32)]) - (1 << (shifts[moved] - 1))
    if bool((np.abs(q) >= LIMIT).any()):
        raise CodecError("E502", f"a coefficient is out of range: {LIMIT} steps or more")
    if out.dtype != np.int32:
        q = 16 * q - np.sign(q) * known.shortfalls[numbers, 3]
    np.put(out, places, q)

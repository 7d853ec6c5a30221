"""models: frozen probabilities of quantised transform coefficients.

Spec: formats/codecs/README.md, section "Models".

    class      what a component is coded with: a table and a shift; class 0 is all zeros
    table      frequencies, in parts of 4096, of -A, …, A and of an escape for what lies beyond
    shift s    h = floor((q + 2**(s - 1)) / 2**s) is coded by the table, then s low bits
    shortfall  16 |q| less the restored magnitude, in sixteenths of a step
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.record import record

WHOLE: Final = 4096  # what the frequencies of a table sum to
DIGITS: Final = 12  # of frequencies, in bits
WORD: Final = 16  # bits of a word of the stream
LIMIT: Final = 1 << 20  # |q| is below
ESCAPE: Final = 1 << 25  # stands for an escape: more than any q, or any q times 16
# floor(x / f) = (x * ceil(2**44 / f)) >> 44 for f < 4096 and x < f * 2**20: the error is below
# 1 / f, and the product below 2**64.
DIVISION: Final = 44


@record
class Model:
    """A class: number of its table, shift, and shortfalls of |q| = 1, 2 and all from 3 on."""

    table: int
    shift: int
    shortfalls: tuple[int, int, int]


@record(eq=False)
class Models:
    """What models.bin holds."""

    classes: tuple[Model, ...]  # the first is that of class 0
    frequencies: tuple[NDArray[np.uint16], ...]  # of -A, …, A, escape, by table
    costs: NDArray[np.uint16]  # of a symbol of such a frequency


@record(eq=False)
class Decoding:
    """By slot: a state modulo 4096."""

    frequencies: NDArray[np.uint64]
    offsets: NDArray[np.uint64]  # slot less the symbol's first slot


@record(eq=False)
class Encoding:
    """By place of a symbol among those of all tables."""

    limits: NDArray[np.uint64]  # states from here on give a word away first
    inverses: NDArray[np.uint64]  # ceil(2**44 / frequency)
    rests: NDArray[np.uint64]  # 4096 - frequency
    starts: NDArray[np.uint64]  # first slot


@record(eq=False)
class ByClass:
    """Numbers of each class, as arrays to look up in."""

    shifts: NDArray[np.int32]
    largest: NDArray[np.int32]  # A
    firsts: NDArray[np.int32]  # place of the symbol -A of its table among those of all tables
    shortfalls: NDArray[np.int32]  # of |q| = 0, 1, 2 and all from 3 on


@cache
def models() -> Models:
    """The frozen models."""
    data = resources.files("kvq_cli").joinpath("tables/models.bin").read_bytes()
    count, tables = (int(number) for number in np.frombuffer(data, "<u2", 2))
    fields = np.frombuffer(data, "i1", 5 * count, 4).reshape(count, 5).tolist()
    classes = tuple(
        Model(table & 255, shift, (one, two, more)) for table, shift, one, two, more in fields
    )
    at = 4 + 5 * count
    frequencies = []
    for _ in range(tables):
        largest = int(np.frombuffer(data, "<u2", 1, at)[0])
        half = np.frombuffer(data, "<u2", largest + 2, at + 2)
        frequencies.append(np.concatenate((half[largest:0:-1], half)))
        at += 2 * (largest + 3)
    return Models(classes, tuple(frequencies), np.frombuffer(data, "<u2", WHOLE, at))


@cache
def of_symbols(number: int, *, whole: bool) -> NDArray[Any]:
    """What the symbols of a class stand for: q, or h; or that restored, in sixteenths of a step."""
    largest = int(by_class().largest[number])
    values = np.append(np.arange(-largest, largest + 1), ESCAPE)
    if whole:
        return values.astype(np.int32)
    shortfalls = by_class().shortfalls[number][np.minimum(np.abs(values), 3)]
    restored: NDArray[np.int64] = 16 * values - np.sign(values) * shortfalls
    restored[-1] = ESCAPE
    return restored.astype(np.float32)


@cache
def values_of(number: int, *, whole: bool) -> NDArray[Any]:
    """The same by slot."""
    frequencies = models().frequencies[models().classes[number].table]
    found: NDArray[Any] = of_symbols(number, whole=whole).repeat(frequencies)
    return found


@cache
def decoding(table: int) -> Decoding:
    """The look-ups of a decoder."""
    frequencies = models().frequencies[table]
    starts = np.array(_before(frequencies.tolist()), np.uint64)
    offsets = np.arange(WHOLE, dtype=np.uint64) - starts.repeat(frequencies)
    return Decoding(frequencies.astype(np.uint64).repeat(frequencies), offsets)


@cache
def by_class() -> ByClass:
    """What the classes say, number by number."""
    classes, frequencies = models().classes, models().frequencies
    sizes = [len(table) for table in frequencies]
    firsts = np.array(_before(sizes), np.int32)
    largest = np.array([size // 2 - 1 for size in sizes], np.int32)
    tables = np.array([model.table for model in classes])
    return ByClass(
        np.array([model.shift for model in classes], np.int32),
        largest[tables],
        firsts[tables],
        np.array([(0, *model.shortfalls) for model in classes], np.int32),
    )


@cache
def encoding() -> Encoding:
    """The look-ups of an encoder."""
    frequencies = np.concatenate(models().frequencies).astype(np.uint64)
    inverses = (frequencies + np.uint64((1 << DIVISION) - 1)) // frequencies
    starts = [_before(table.tolist()) for table in models().frequencies]
    return Encoding(
        frequencies << np.uint64(2 * WORD - DIGITS),
        inverses,
        np.uint64(WHOLE) - frequencies,
        np.concatenate(starts).astype(np.uint64),
    )


def _before(numbers: list[int]) -> list[int]:
    """The sum of all numbers before each."""
    found, start = [], 0
    for number in numbers:
        found.append(start)
        start += number
    return found

"""coefficients: frozen models, and the decoder of coefficients, one symbol at a time.

Part of the reference reader: written from `formats/codecs/README.md` alone, without kvq_cli.
"""

from __future__ import annotations

import re
import struct
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3
from reference.refused import need

FORMATS = Path(__file__).parents[2] / "formats"
MODELS = FORMATS / "tables" / "models.bin"


@cache
def models() -> tuple[list[Any], list[Any], list[int]]:
    """Classes, tables as (A, frequencies of all symbols), costs."""
    data = MODELS.read_bytes()
    (digest,) = re.findall(
        r"models\.bin` \(`blake3:([0-9a-f]{64})`", (FORMATS / "codecs/README.md").read_text()
    )
    assert blake3(data).hexdigest() == digest
    count, many = struct.unpack_from("<HH", data)
    classes = [struct.unpack_from("<BBbbb", data, 4 + 5 * number) for number in range(count)]
    at, tables = 4 + 5 * count, []
    for _ in range(many):
        (largest,) = struct.unpack_from("<H", data, at)
        found = struct.unpack_from(f"<{largest + 2}H", data, at + 2)
        tables.append((largest, [*found[largest:0:-1], *found]))
        at += 2 * (largest + 3)
    costs = list(struct.unpack_from("<4096H", data, at))
    assert at + 8192 == len(data)
    return classes, tables, costs


def head_of(numbers: list[int]) -> list[int]:
    classes, tables, _ = models()
    head, left = [], 1 << 16
    for component, number in enumerate(numbers):
        table, shift = classes[number][:2]
        if number and not shift and len(tables[table][1]) <= left:
            head.append(component)
            left //= len(tables[table][1])
    return head


class Lanes:
    """States, and the words they read."""

    def __init__(self, states: list[int], words: list[int]) -> None:
        need(all(x >= 1 << 16 for x in states), "a state is too small")
        self.x, self.words, self.at = list(states), words, 0

    def refill(self, lane: int) -> None:
        if self.x[lane] < 1 << 16:
            need(self.at < len(self.words), "no word is left")
            self.x[lane] = self.x[lane] << 16 | self.words[self.at]
            self.at += 1

    def symbol(self, lane: int, frequencies: list[int]) -> int:
        x, start = self.x[lane], 0
        for symbol, frequency in enumerate(frequencies):
            if x % 4096 < start + frequency:
                self.x[lane] = frequency * (x // 4096) + x % 4096 - start
                self.refill(lane)
                return symbol
            start += frequency
        raise AssertionError

    def low(self, lane: int, shift: int) -> int:
        x = self.x[lane]
        self.x[lane] = x >> shift
        self.refill(lane)
        return x % (1 << shift)


def decode(states: Any, words: Any, numbers: Any, tokens: int) -> list[list[int]]:
    """q, component by component."""
    states, words, numbers = (list(map(int, array)) for array in (states, words, numbers))
    classes, tables, _ = models()
    need(all(number < len(classes) for number in numbers), "no such class")
    need(1 <= len(states) <= min(tokens, 512), "too many states, or none")
    lanes, count, head = Lanes(states, words), len(states), head_of(numbers)
    symbols = [[0] * tokens for _ in numbers]
    low = [[0] * tokens for _ in numbers]
    for component, number in enumerate(numbers):
        table, shift = classes[number][:2]
        if not number:
            continue
        first = count if component in head else 0
        for start in range(first, tokens, count):
            row = range(start, min(start + count, tokens))
            for token in row:
                symbols[component][token] = lanes.symbol(token - start, tables[table][1])
            for token in row if shift else ():
                low[component][token] = lanes.low(token - start, shift)
    for lane in range(count):
        left = lanes.x[lane] - (1 << 16)
        for component in head:
            left, symbols[component][lane] = divmod(
                left, len(tables[classes[numbers[component]][0]][1])
            )
        need(left == 0, "something is left of a state")
    escapes = iter(escapes_of(words[lanes.at :]))
    q = [
        [value_of(number, *pair, escapes) for pair in zip(*lines, strict=True)]
        for number, *lines in zip(numbers, symbols, low, strict=True)
    ]
    need(next(escapes, None) is None, "an escape is left")
    return q


def escapes_of(words: list[int]) -> list[int]:
    need(len(words) % 2 == 0, "half an escape")
    return [
        struct.unpack("<i", struct.pack("<HH", *pair))[0]
        for pair in zip(words[::2], words[1::2], strict=True)
    ]


def value_of(number: int, symbol: int, low: int, escapes: Any) -> int:
    if not number:
        return 0
    classes, tables, _ = models()
    table, shift = classes[number][:2]
    largest = tables[table][0]
    value = symbol - largest
    if symbol == 2 * largest + 1:
        value = next(escapes, None)
        need(value is not None, "an escape is missing")
        need(abs(value) > largest, "an escape of the alphabet")
    q = (value << shift) + low - (1 << shift >> 1)
    need(abs(q) < 1 << 20, "out of range")
    return q


def restored(number: int, q: int) -> int:
    """In sixteenths of a step."""
    shortfall = (0, *models()[0][number][2:])[min(abs(q), 3)] if number else 0
    return (1 if q > 0 else -1) * (16 * abs(q) - shortfall) if q else 0

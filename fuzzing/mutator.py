"""mutator: JSON text changed as JSON: values, members and elements, and not only bytes.

Half of all inputs are left to libFuzzer. The other half get one or two edits at random places;
text that is no JSON survives them as some other text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

Mutate = Callable[[bytes, int], bytes]

SCALAR: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')
KEY: Final = re.compile(rb'"(?:[^"\\]|\\.)*":')
MARK: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]')
NUMBERS: Final = (
    0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 63, 64, 65, 127, 128, 255, 256, 257, 4095, 4096, 4097,
    65535, 65536, 65537, *((1 << bits) + by for bits in (20, 21, 26, 31, 32, 40, 48, 50, 53, 63, 64)
    for by in (-1, 0, 1)), -1, -2, -65535, -(1 << 63), 10**39, 10**41,
)  # fmt: skip
ODD: Final = (
    b"null", b"true", b"false", b"[]", b"{}", b'""', b"1.5", b"-0", b"1e400", b"NaN", b"[[]]",
    b'"\\ud800"', b'"\\u0000"', b'"\xc3\xa9"', b'"\xf0\x9f\x98\x80"', b"0.1", b"-0.0", b"1e-7",
)  # fmt: skip


class Chance:
    """A small generator: the mutator is called for every execution."""

    def __init__(self, seed: int) -> None:
        self.state = seed * 0x9E3779B97F4A7C15 + 1 & 0xFFFFFFFFFFFFFFFF

    def below(self, most: int) -> int:
        self.state = self.state * 6364136223846793005 + 1442695040888963407 & 0xFFFFFFFFFFFFFFFF
        return (self.state >> 33) % most


class JsonMutator:
    """Edits of JSON behind the first byte, with the words of one target."""

    def __init__(self, words: Sequence[str], mutate: Mutate) -> None:
        quoted = [b'"%b"' % word.encode() for word in words]
        self.words = [*quoted, *ODD, *(str(number).encode() for number in NUMBERS)]
        self.keys = quoted or [b'"a"']
        self.mutate = mutate

    def __call__(self, data: bytes, most: int, seed: int) -> bytes:
        chance = Chance(seed)
        if chance.below(2) or len(data) < 3:
            return self.mutate(data, most)
        for _ in range(1 + chance.below(2)):
            data = EDITS[chance.below(len(EDITS))](self, data, chance)
        return data[:most]

    def replace(self, data: bytes, chance: Chance) -> bytes:
        """Another value for a scalar."""
        found = VALUE.search(data, chance.below(len(data)))
        if found is None:
            return data
        begin, end = found.span()
        return data[:begin] + self.words[chance.below(len(self.words))] + data[end:]

    def nudge(self, data: bytes, chance: Chance) -> bytes:
        """A number a little larger or smaller, doubled or halved."""
        found = NUMBER.search(data, chance.below(len(data)))
        if found is None:
            return data
        number = int(found[0][:40])
        new = (number + 1, number - 1, 2 * number, number // 2, number + 16)[chance.below(5)]
        return data[: found.start()] + str(new).encode() + data[found.end() :]

    def drop(self, data: bytes, chance: Chance) -> bytes:
        """A member or element less."""
        begin, end = member(data, chance)
        if data[end : end + 1] == b",":
            end += 1
        elif data[begin - 1 : begin] == b",":
            begin -= 1
        return data[:begin] + data[end:]

    def double(self, data: bytes, chance: Chance) -> bytes:
        """An element twice."""
        begin, end = element(data, chance)
        return data[:end] + b"," + data[begin:end] + data[end:]

    def copy(self, data: bytes, chance: Chance) -> bytes:
        """A value in the place of another."""
        begin, end = value_at(data, chance)
        start, stop = value_at(data, chance)
        return data[:begin] + data[start:stop] + data[end:]

    def insert(self, data: bytes, chance: Chance) -> bytes:
        """A new member or element."""
        at = data.find(b"{", chance.below(len(data))) + 1
        if at == 0:
            return data
        value = self.words[chance.below(len(self.words))]
        rest = b"" if data[at : at + 1] == b"}" else b","
        key = self.keys[chance.below(len(self.keys))]
        return data[:at] + key + b":" + value + rest + data[at:]

    def swap_word(self, data: bytes, chance: Chance) -> bytes:
        """A word of this target for a string."""
        found = STRING.search(data, chance.below(len(data)))
        if found is None:
            return data
        return data[: found.start()] + self.keys[chance.below(len(self.keys))] + data[found.end() :]


VALUE: Final = re.compile(rb"(?<=[:,\[])(?:" + SCALAR.pattern + rb")(?=[,\]}])")
NUMBER: Final = re.compile(rb"(?<=[:,\[])-?\d+")
STRING: Final = re.compile(rb'(?<=[:,\[])"(?:[^"\\]|\\.)*"(?=[,\]}])')
EDITS: Final = (
    JsonMutator.replace, JsonMutator.replace, JsonMutator.nudge, JsonMutator.nudge,
    JsonMutator.drop, JsonMutator.double, JsonMutator.copy, JsonMutator.insert,
    JsonMutator.swap_word,
)  # fmt: skip


def value_at(data: bytes, chance: Chance) -> tuple[int, int]:
    """Begin and end of a value: a scalar, or an object or array with all that is in it."""
    found = KEY.search(data, chance.below(len(data)))
    begin = found.end() if found else 1
    return begin, value_end(data, begin)


def member(data: bytes, chance: Chance) -> tuple[int, int]:
    """Begin and end of a member of an object, or at times of an element."""
    if chance.below(3) == 0:
        return element(data, chance)
    found = KEY.search(data, chance.below(len(data)))
    return (found.start(), value_end(data, found.end())) if found else (1, 1)


def element(data: bytes, chance: Chance) -> tuple[int, int]:
    """Begin and end of an array's first element."""
    begin = data.find(b"[", chance.below(len(data))) + 1
    return (begin, value_end(data, begin)) if begin else (1, 1)


def value_end(data: bytes, begin: int) -> int:
    found = SCALAR.match(data, begin)
    if found:
        return found.end()
    depth = 0
    for mark in MARK.finditer(data, begin):
        text = mark[0]
        if text in b"[{":
            depth += 1
        elif text in b"]}":
            depth -= 1
            if depth <= 0:
                return mark.end() if depth == 0 else begin
    return begin

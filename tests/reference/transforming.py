"""transforming: the codec `transform`, a component and a dimension at a time.

Part of the reference reader: written from `formats/codecs/transform.md` and
`formats/transform.md` alone, without kvq_cli. Sums of products are Python's own integers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from reference.coefficients import decode, restored
from reference.refused import need
from reference.restoring import LARGEST, WIDTHS, narrow, number

DIGEST = "blake3:"
Spec = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """Where a page lies: its layers, and the position of its first token."""

    role: int
    layer: int
    layers: int
    position: int


class Transform:
    """Classes, states and words; a basis table; a place."""

    placed = True

    def check(self, params: Any) -> None:
        need(set(params) == {"basis", "size", "step", "turned"}, "parameters of transform")
        basis, size, step = params["basis"], params["size"], params["step"]
        need((basis is None) == (size is None), "basis and size come together")
        need(isinstance(params["turned"], bool), "turned")
        whole = all(type(one) in (int, type(None)) for one in (size, step))
        need(whole and (size is None or 32 <= size <= 2**26), "size")
        need(step is None or 1 <= step <= 2**24, "step")
        if basis is not None:
            text = basis[len(DIGEST) :] if isinstance(basis, str) else ""
            hexadecimal = len(text) == 64 and set(text) <= set("0123456789abcdef")
            need(hexadecimal and basis.startswith(DIGEST), "basis")

    def tables(self, params: Any) -> list[Any]:
        if params["basis"] is None:
            return []
        return [{"dtype": "|u1", "shape": [params["size"]], "digest": params["basis"]}]

    def fits(self, params: Any, spec: Spec, dtype: str, packed: Sequence[int]) -> bool:
        """Whether planes may be so long."""
        del params
        need(len(packed) == 3, "three planes")
        heads, tokens, channels = spec
        size = math.prod(spec) * WIDTHS[dtype]
        lanes = max(1, min(tokens, 512, tokens * heads * channels // 512))
        classes, states, words = packed
        return (
            classes <= heads * channels and states == 4 * lanes and words <= size and not words % 2
        )

    def decode(
        self,
        params: Any,
        spec: Spec,
        dtype: str,
        planes: Sequence[bytes],
        *tables: Any,
        place: Place,
    ) -> Any:
        need(bool(tables) and params["step"] is not None, "a codec that is not bound")
        heads, tokens, channels = spec
        group = group_of(tables[0].tobytes(), place)
        need((heads, channels) == (group.layers * group.heads, group.channels), "heads of a group")
        turn = group.turn if params["turned"] else None
        classes, states, words = (
            np.frombuffer(plane, kind)
            for plane, kind in zip(planes, ("u1", "<u4", "<u2"), strict=True)
        )
        need(len(classes) <= len(group.restore), "more components than the rank")
        need(len(classes) == 0 or classes[-1] != 0, "the last component is absent")
        if turn is not None:
            last = len(turn.fine) * len(turn.coarse)
            need(place.position + tokens <= last, "positions beyond the table")
        q = decode(states, words, classes, tokens)
        v = [[restored(int(c), one) for one in line] for c, line in zip(classes, q, strict=True)]
        sums = np.zeros((heads * channels, tokens), np.float32)
        for d in range(heads * channels):
            for t in range(tokens):
                # Exact; float() rounds to nearest, and float32 holds what is left or rounds once.
                whole = sum(v[c][t] * group.restore[c][d] for c in range(len(v)))
                sums[d, t] = once(whole)
        part = np.float32(params["step"] / 65536 / 16)
        factors = part * np.ldexp(np.float32(1), -group.exponents).astype(np.float32)
        values = sums * factors[:, None] + group.means[:, None]
        values = values.reshape(heads, channels, tokens).swapaxes(1, 2)
        if turn is not None:
            values = turn.put_on(values, place.position)
        limit = number(LARGEST[dtype])
        values = np.where(np.isnan(values), np.float32(0), values)
        return narrow(np.ascontiguousarray(np.clip(values, -limit, limit)), dtype)


def once(whole: int) -> Any:
    """An integer below 2^53 as float32, rounded half to even."""
    assert abs(whole) < 2**53
    return np.float32(float(whole))


@dataclass(frozen=True)
class Turn:
    pairs: int
    interleaved: bool
    fine: list[list[tuple[int, int]]]
    coarse: list[list[tuple[int, int]]]

    def put_on(self, values: Any, position: int) -> Any:
        """Rows (heads, tokens, channels) turned by their positions."""
        found = values.copy()
        for t in range(values.shape[1]):
            high, low = divmod(position + t, len(self.fine))
            for pair in range(self.pairs):
                cos, sin = both(self.coarse[high][pair], self.fine[low][pair])
                i, j = (2 * pair, 2 * pair + 1) if self.interleaved else (pair, self.pairs + pair)
                a, b = values[:, t, i], values[:, t, j]
                with np.errstate(over="ignore", invalid="ignore"):
                    found[:, t, i] = a * cos - b * sin
                    found[:, t, j] = b * cos + a * sin
        return found


def both(one: tuple[int, int], other: tuple[int, int]) -> tuple[Any, Any]:
    """Cosine and sine of the sum of two angles."""
    (c, s), (k, z) = ([part * 2.0**-30 for part in each] for each in (one, other))
    return np.float32(c * k - s * z), np.float32(s * k + c * z)


@dataclass(frozen=True)
class Group:
    role: int
    first: int
    layers: int
    heads: int
    channels: int
    turn: Turn | None
    means: Any
    exponents: Any
    restore: list[list[int]]


def group_of(table: bytes, place: Place) -> Group:
    for group in groups_of(table):
        if (group.role, group.first, group.layers) == (place.role, place.layer, place.layers):
            return group
    need(False, "layers that are no group")
    raise AssertionError


def groups_of(table: bytes) -> list[Group]:
    """A basis table, all of it checked."""
    need(len(table) >= 32, "basis table is cut off")
    magic, version, turns, groups, zero = struct.unpack("<8sIII12s", table[:32])
    need((magic, version, zero) == (b"kvqbasis", 1, bytes(12)), "start of a basis table")
    need(turns <= 8 and groups <= 4096, "turns or groups")
    rest = Rest(table, 32)
    made = [turn_of(rest) for _ in range(turns)]
    found = [read_group(rest, made) for _ in range(groups)]
    need(rest.at == len(table), "bytes behind the basis table")
    for one, other in pairwise(found):
        need((one.role, one.first + one.layers) <= (other.role, other.first), "order of groups")
    return found


class Rest:
    """The bytes of a table that nobody has read."""

    def __init__(self, table: bytes, at: int) -> None:
        self.table, self.at = table, at

    def take(self, size: int) -> bytes:
        part = self.table[self.at : self.at + size]
        need(len(part) == size, "basis table is cut off")
        self.at += size
        return part


def turn_of(rest: Rest) -> Turn:
    pairs, style, fine, coarse, zero = struct.unpack("<IIII16s", rest.take(32))
    need(1 <= pairs <= 2048 and style < 2 and zero == bytes(16), "turn")
    need(1 <= fine <= 1024 and 1 <= coarse <= 4096, "turn")
    tables = []
    for count in (fine, coarse):
        numbers = list(struct.iter_unpack("<ii", rest.take(8 * pairs * count)))
        tables.append([numbers[at * pairs : (at + 1) * pairs] for at in range(count)])
    return Turn(pairs, style == 1, *tables)


def read_group(rest: Rest, turns: list[Turn]) -> Group:
    head = struct.unpack("<8I", rest.take(32))
    role, first, layers, heads, channels, rank, turn, zero = head
    n = layers * heads * channels
    need(role < 2 and zero == 0 and 1 <= n <= 4096 and rank <= n, "group")
    need(turn == 0xFFFFFFFF or turn < len(turns), "turn of a group")
    mine = None if turn == 0xFFFFFFFF else turns[turn]
    need(mine is None or 2 * mine.pairs <= channels, "turn of a group")
    means = np.frombuffer(rest.take(4 * n), "<f4")
    exponents = np.frombuffer(rest.take(2 * n), "<i2").astype(np.int32)
    need(
        bool(np.isfinite(means).all()) and bool((abs(exponents) <= 60).all()), "numbers of a group"
    )
    low, high = rest.take(rank * n), rest.take(rank * n)
    whole = [one | other << 8 for one, other in zip(low, high, strict=True)]
    signed = [one - 65536 if one >= 32768 else one for one in whole]
    restore = [signed[at * n : (at + 1) * n] for at in range(rank)]
    return Group(role, first, layers, heads, channels, mine, means, exponents, restore)

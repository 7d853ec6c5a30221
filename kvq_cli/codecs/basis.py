"""basis: the table of the codec transform: means, matrices and rotary positions of its groups.

Spec: formats/transform.md, section "Basis table".

    0    8   magic          8    4   version        12   4   turns
    16   4   groups         20   12  zero           then turns, then groups, each 32 bytes and data

A group is some neighbouring layers of one role; a dimension of it is (layer, kv head, channel).
Matrices are integers: whatever made them, from here on they are data.
"""

from __future__ import annotations

import math
import struct
from itertools import pairwise
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.record import record
from kvq_cli.words import Role

MAGIC: Final = b"kvqbasis"
VERSION: Final = 1
HEAD: Final = struct.Struct("<8sIII12x")
TURN: Final = struct.Struct("<IIII16x")
GROUP: Final = struct.Struct("<8I")
NO_TURN: Final = 0xFFFFFFFF
UNIT: Final = 2.0**-30  # of a cosine

MAX_TURNS: Final = 8
MAX_GROUPS: Final = 4096
MAX_DIMENSIONS: Final = 4096
MAX_FINE: Final = 1024
MAX_COARSE: Final = 4096
MAX_PAIRS: Final = 2048
MAX_EXPONENT: Final = 60


@record(eq=False)
class Turn:
    """Rotary positions: cosine and sine of every `fine`-th position, and of those between."""

    interleaved: bool
    fine: NDArray[np.int32]  # (positions, pairs, 2)
    coarse: NDArray[np.int32]

    @property
    def pairs(self) -> int:
        return int(self.fine.shape[1])

    @property
    def positions(self) -> int:
        """How many there are."""
        return len(self.fine) * len(self.coarse)

    def angles(self, first: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines (T, pairs) of these positions."""
        return self.at(np.arange(first, first + count))

    def at(self, positions: NDArray[np.integer]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Those of any positions (T,), by the addition theorem."""
        high, low = np.divmod(positions, len(self.fine))
        one, other = self.coarse[high] * UNIT, self.fine[low] * UNIT
        cosines = one[..., 0] * other[..., 0] - one[..., 1] * other[..., 1]
        sines = one[..., 1] * other[..., 0] + one[..., 0] * other[..., 1]
        return cosines.astype(np.float32), sines.astype(np.float32)


@record(eq=False)
class Group:
    """Layers that are transformed together: x = means + 2**-exponents * (v @ restore) * step."""

    role: Role
    first: int
    layers: int
    heads: int
    channels: int
    turn: int | None
    means: NDArray[np.float32]
    exponents: NDArray[np.int16]
    restore: NDArray[np.int16]  # (rank, dimensions)

    @property
    def dimensions(self) -> int:
        return self.layers * self.heads * self.channels

    @property
    def rank(self) -> int:
        return len(self.restore)

    @property
    def place(self) -> tuple[Role, int, int]:
        return self.role, self.first, self.layers


@record(eq=False)
class Basis:
    """All groups of a calibration."""

    turns: tuple[Turn, ...]
    groups: tuple[Group, ...]

    def number(self, role: Role, first: int, layers: int) -> int | None:
        """The number of the group of just these layers."""
        wanted = (role, first, layers)
        found = (number for number, each in enumerate(self.groups) if each.place == wanted)
        return next(found, None)

    def to_bytes(self) -> bytes:
        parts = [HEAD.pack(MAGIC, VERSION, len(self.turns), len(self.groups))]
        for turn in self.turns:
            style, sizes = int(turn.interleaved), (len(turn.fine), len(turn.coarse))
            parts.append(TURN.pack(turn.pairs, style, *sizes))
            parts += [turn.fine.astype("<i4").tobytes(), turn.coarse.astype("<i4").tobytes()]
        for group in self.groups:
            numbers = (group.role, group.first, group.layers, group.heads, group.channels)
            turn_number = NO_TURN if group.turn is None else group.turn
            parts.append(GROUP.pack(*numbers, group.rank, turn_number, 0))
            parts += [group.means.astype("<f4").tobytes(), group.exponents.astype("<i2").tobytes()]
            planes = group.restore.astype("<i2").reshape(-1, 1).view(np.uint8)
            parts += [planes[:, 0].tobytes(), planes[:, 1].tobytes()]
        return b"".join(parts)

    @classmethod
    def from_bytes(cls, data: NDArray[np.uint8] | bytes) -> Self:
        """CodecError E502 unless the bytes are a basis table and nothing else."""
        cursor = _Cursor(np.frombuffer(data, np.uint8))
        magic, version, turns, groups = cursor.struct(HEAD)
        if magic != MAGIC or version != VERSION:
            raise _refusal("not a basis table of version 1")
        if turns > MAX_TURNS or groups > MAX_GROUPS:
            raise _refusal(f"{turns} turns and {groups} groups")
        made_turns = tuple(_turn(cursor) for _ in range(turns))
        made = tuple(_group(cursor, made_turns) for _ in range(groups))
        cursor.end()
        for one, other in pairwise(made):
            if (one.role, one.first + one.layers) > (other.role, other.first):
                raise _refusal("groups out of order")
        return cls(made_turns, made)


class _Cursor:
    """Reads forward, never past the end."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self._data, self._at = data, 0

    def take(self, dtype: str, *shape: int) -> NDArray[Any]:
        """The next array; a view where the alignment does not matter."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if self._at + size > len(self._data):
            raise _refusal("cut off")
        part = self._data[self._at : self._at + size]
        self._at += size
        return np.frombuffer(part, dtype).reshape(shape)

    def struct(self, layout: struct.Struct) -> tuple[Any, ...]:
        data = self.take("|u1", layout.size).tobytes()
        values = layout.unpack(data)
        if layout.pack(*values) != data:
            raise _refusal("reserved bytes are not zero")
        return values

    def end(self) -> None:
        if self._at != len(self._data):
            raise _refusal("bytes behind the last group")


def _turn(cursor: _Cursor) -> Turn:
    pairs, style, fine, coarse = cursor.struct(TURN)
    if style > 1 or not (0 < pairs <= MAX_PAIRS and 0 < fine <= MAX_FINE):
        raise _refusal("a turn with a number outside the spec")
    if not 0 < coarse <= MAX_COARSE:
        raise _refusal("a turn with a number outside the spec")
    return Turn(
        bool(style), cursor.take("<i4", fine, pairs, 2), cursor.take("<i4", coarse, pairs, 2)
    )


def _group(cursor: _Cursor, turns: tuple[Turn, ...]) -> Group:
    role, first, layers, heads, channels, rank, turn, zero = cursor.struct(GROUP)
    size = layers * heads * channels
    if zero or role > 1 or not 0 < size <= MAX_DIMENSIONS or rank > size:
        raise _refusal("a group with a number outside the spec")
    if turn != NO_TURN and (turn >= len(turns) or 2 * turns[turn].pairs > channels):
        raise _refusal("a group with a turn that is not for it")
    means, exponents = cursor.take("<f4", size), cursor.take("<i2", size)
    low, high = cursor.take("|u1", rank, size), cursor.take("|i1", rank, size)
    if not np.isfinite(means).all() or (np.abs(exponents.astype(np.int32)) > MAX_EXPONENT).any():
        raise _refusal("a mean or an exponent outside the spec")
    return Group(
        role=Role(role),
        first=first,
        layers=layers,
        heads=heads,
        channels=channels,
        turn=None if turn == NO_TURN else turn,
        means=means,
        exponents=exponents,
        restore=(high.astype(np.int16) << 8) | low,
    )


def _refusal(what: str) -> CodecError:
    return CodecError("E502", f"transform: basis table: {what}")

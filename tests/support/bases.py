"""bases: calibrations of the codec transform that nobody learned, the same on every machine.

    group(Role.KEY, 0, 1, heads, channels, turn=0)    a basis of reflected axes, and its way back
    calibration(groups, turns)                        what a file of them would hold

A matrix is I - 2 w wᵀ / wᵀw of small integers w, each dimension at a scale of its own, each
number rounded once; a turn is powers of (a + b i) / c with a² + b² = c². So the same numbers
come out everywhere, without a sine or an eigenvector.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from kvq_cli.codecs.basis import Basis, Group, Turn
from kvq_cli.codecs.matrices import FORWARD, forward_name
from kvq_cli.codecs.transform import Transform
from kvq_cli.planes import table_spec
from kvq_cli.steps.kvqcal import file_of
from kvq_cli.steps.rounding import Forward
from kvq_cli.words import Role

TRIPLES = ((3, 4, 5), (12, 5, 13), (15, 8, 17), (24, 7, 25), (20, 21, 29))
IN, OUT, ENTRY, RESTORE = 8, 22, 14, 11  # exponents of a dimension at scale 1
REACH = 2.0 ** (24 - IN)  # elements of that dimension that are refused


@dataclass(frozen=True)
class Made:
    """A group, and what an encoder needs for it."""

    group: Group
    forward: Forward


def group(
    role: Role,
    first: int,
    layers: int,
    heads: int,
    channels: int,
    turn: int | None = None,
    rank: int | None = None,
    spread: int = 1,
) -> Made:
    """Dimensions at scales from 2**-spread to 2**spread; the first `rank` components."""
    size = layers * heads * channels
    number = np.arange(size)
    scale = (number * 5 + first) % (2 * spread + 1) - spread
    across = reflection(size)[:, :rank]
    matrix = np.rint(across * 2.0**ENTRY)
    restore = np.rint(np.ldexp(across, RESTORE)).T
    made = Group(
        role=role,
        first=first,
        layers=layers,
        heads=heads,
        channels=channels,
        turn=turn,
        means=((number * 7 + first) % 11 - 5).astype(np.float32) / 4,
        exponents=(RESTORE + scale).astype(np.int16),
        restore=restore.astype(np.int16),
    )
    outward = np.full(across.shape[1], OUT, np.int16)
    return Made(made, Forward(matrix.astype(np.int16), (IN + scale).astype(np.int16), outward))


def reflection(size: int) -> np.ndarray:
    """An orthogonal matrix whose rows all meet."""
    weights = 1 + np.arange(size) * 5 % 3
    whole = int((weights**2).sum())
    products = 2.0 * np.outer(weights, weights)
    return np.eye(size) - products / whole


def turn(pairs: int, *, interleaved: bool = False, fine: int = 8, coarse: int = 16) -> Turn:
    """Each pair by an angle of its own, faster ones first."""
    tables = [
        np.stack([powers(pair % len(TRIPLES), step, count) for pair in range(pairs)], axis=1)
        for step, count in ((1, fine), (fine, coarse))
    ]
    return Turn(interleaved, *tables)


@cache
def powers(number: int, step: int, count: int) -> np.ndarray:
    """Cosine and sine of 0, step, 2 step, … times the angle of a triple, in units of 2**-30."""
    a, b, c = TRIPLES[number]
    rows = np.empty((count, 2), np.int32)
    for at in range(count):
        real, imaginary, whole = 1, 0, c ** (step * at)
        for _ in range(step * at):
            real, imaginary = real * a - imaginary * b, real * b + imaginary * a
        rows[at] = [round(Fraction(part << 30, whole)) for part in (real, imaginary)]
    return rows


@dataclass(frozen=True)
class Calibration:
    """A basis table, and all that an encoder finds beside it."""

    basis: Basis
    table: np.ndarray
    forward: tuple[Forward, ...]

    @property
    def digest(self) -> str:
        return table_spec(self.table).digest

    def codec(self, step: int | None, **params: Any) -> Transform:
        return Transform(self.digest, self.table.nbytes, step, **params)

    def tables(self) -> dict[str, np.ndarray]:
        """For a scratch."""
        found = {self.digest: self.table}
        for number, each in enumerate(self.forward):
            parts = (each.matrix, each.inward, each.outward)
            for name, part in zip(FORWARD, parts, strict=True):
                found[forward_name(self.digest, number, name)] = part
        return found

    def write(self, path: Path, **metadata: str) -> Path:
        """As a file."""
        header, data = file_of(self.table.tobytes(), self.forward, metadata)
        path.write_bytes(b"".join([header.raw, *map(bytes, data)]))
        return path


def calibration(groups: Sequence[Made], turns: Sequence[Turn] = ()) -> Calibration:
    """Groups in the order of a table."""
    ordered = sorted(groups, key=lambda each: each.group.place)
    basis = Basis(tuple(turns), tuple(each.group for each in ordered))
    table = np.frombuffer(basis.to_bytes(), np.uint8)
    return Calibration(basis, table, tuple(each.forward for each in ordered))


def of_layers(
    layers: int,
    heads: int,
    channels: int,
    *,
    each: int = 1,
    pairs: int = 0,
    interleaved: bool = False,
    coarse: int = 64,
    rank: int | None = None,
) -> Calibration:
    """For a cache: groups of `each` layers, the last of what is left; keys turned where told."""
    groups = [
        group(
            role,
            first,
            min(each, layers - first),
            heads,
            channels,
            0 if pairs and role is Role.KEY else None,
            rank,
        )
        for role in Role
        for first in range(0, layers, each)
    ]
    turns = [turn(pairs, interleaved=interleaved, coarse=coarse)] if pairs else []
    return calibration(groups, turns)


def tables_of(vector: dict[str, Any]) -> dict[str, bytes]:
    """The basis table of the calibration that a container vector has, by its digest."""
    if "calibration" not in vector:
        return {}
    data = base64.b64decode(vector["calibration"])
    size = 8 + int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8:size])["basis"]["data_offsets"]
    table = data[size + first : size + last]
    return {"blake3:" + blake3(table).hexdigest(): table}

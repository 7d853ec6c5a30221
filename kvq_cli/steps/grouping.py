"""grouping: which layers are transformed together.

Spec: formats/transform.md, section "Groups".

A stretch is neighbouring layers of a role that are alike: kv heads, channels, tokens, turn and
word of layer_types. It is cut into groups of so many layers from its start, none of more than
4,096 dimensions. Where tables of all groups would not fit, each keeps the same share of its
components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from kvq_cli.capture.layout import LayerShape
from kvq_cli.codecs.basis import MAX_DIMENSIONS, MAX_TURNS
from kvq_cli.errors import ProfileError
from kvq_cli.record import record
from kvq_cli.steps.given import Given
from kvq_cli.steps.rotary import Rotary, kind_of, rotary_of, turned_state
from kvq_cli.words import MAX_TABLE_BYTES, Role

AUTO: Final = 0  # instead of a number of layers
SIZES: Final = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)  # that auto tries
AUTO_DIMENSIONS: Final = (
    2048  # of a group that auto tries: larger ones take minutes, and gain little
)
BESIDE: Final = 1 << 20  # bytes of a table that are no matrices, turns apart


@record(eq=False)
class Stretch:
    """Places, among the capture's layers, that may be transformed together."""

    role: Role
    places: range
    first: int  # the number of the first layer
    heads: int
    channels: int
    turn: int | None

    @property
    def widest(self) -> int:
        """So many layers have a place in one group."""
        return MAX_DIMENSIONS // (self.heads * self.channels)

    @property
    def tried(self) -> int:
        """So many layers are tried together by auto."""
        return max(1, AUTO_DIMENSIONS // (self.heads * self.channels))

    def cut(self, layers: int) -> list[Stretch]:
        size = max(1, min(layers, self.widest))
        return [
            Stretch(
                self.role,
                self.places[at : at + size],
                self.first + at,
                self.heads,
                self.channels,
                self.turn,
            )
            for at in range(0, len(self.places), size)
        ]

    @property
    def dimensions(self) -> int:
        return len(self.places) * self.heads * self.channels


@record(eq=False)
class Turns:
    """How the keys of each layer are turned: by place, a number of those that differ."""

    rotaries: tuple[Rotary, ...]
    numbers: Mapping[int, int]
    done: bool  # whether the capture's keys are

    @classmethod
    def of(cls, given: Given, *, needed: bool) -> Turns:
        """None where keys have none, nor where they have none yet and nobody needs to know."""
        identity, found = given.capture.identity, dict[Rotary, int]()
        keyed = any(each.key for each in given.capture.layers)
        state = turned_state(identity) if keyed else None
        if state is None or not (state or needed):
            return cls((), {}, done=False)
        numbers = {}
        for place, layer in enumerate(given.capture.layers):
            if layer.key:
                rotary = rotary_of(identity, place, layer.key[0])
                numbers[place] = found.setdefault(rotary, len(found))
        if len(found) > MAX_TURNS:
            what = f"{len(found)} kinds of rotary positions, at most {MAX_TURNS} are allowed"
            raise ProfileError("E404", what)
        return cls(tuple(found), numbers, state)


def stretches(captures: Sequence[Given], turns: Turns) -> list[Stretch]:
    """All of them, by role; ProfileError for a layer that is larger than any group."""
    first = captures[0].capture
    found = []
    for role in Role:
        places = [at for at, layer in enumerate(first.layers) if role in layer.roles]

        def alike(at: int, role: Role = role) -> tuple[object, ...]:
            layer = first.layers[at]
            shapes = tuple(_shape(each.capture.layers[at]) for each in captures)
            kind, turn = kind_of(first.identity, at), turns.numbers.get(at)
            return layer.layer - at, layer.heads, layer.roles[role][0], kind, turn, shapes

        for _, together in groupby(places, alike):
            span = list(together)
            layer = first.layers[span[0]]
            turn = turns.numbers.get(span[0]) if role is Role.KEY and turns.done else None
            found.append(
                Stretch(
                    role,
                    range(span[0], span[-1] + 1),
                    layer.layer,
                    layer.heads,
                    layer.roles[role][0],
                    turn,
                )
            )
    for each in found:
        if not each.widest:
            what = f"layer {each.first} has {each.heads * each.channels} dimensions"
            raise ProfileError("E404", f"{what}, at most {MAX_DIMENSIONS} are transformed")
    return found


def share_kept(found: Sequence[Stretch], layers: int) -> float:
    """The share of its components that each group may keep, so that the table is not too large."""
    groups = [group for each in found for group in each.cut(layers)]
    whole = sum(2 * group.dimensions**2 for group in groups)
    return min(1.0, (MAX_TABLE_BYTES * 15 // 16 - BESIDE) / whole)


def _shape(layer: LayerShape) -> tuple[int, int]:
    return layer.batch, layer.tokens

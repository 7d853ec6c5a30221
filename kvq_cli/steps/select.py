"""select: which rows of a cache are asked for.

Layers, heads and tokens are given as in `--tokens 0,5,100:200,-10:`: numbers and half-open
ranges, negative ones counted from the end. They are taken in ascending order, once each.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeAlias

from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import UsageError
from kvq_cli.record import record
from kvq_cli.words import Role

Chosen: TypeAlias = Sequence[int | slice] | None
ITEM: Final = re.compile(r"(?P<start>-?\d{1,12})?(?P<range>:(?P<stop>-?\d{1,12})?)?")


@record
class Selection:
    """None means all."""

    roles: tuple[Role, ...] = tuple(Role)
    chosen_layers: Chosen = None
    chosen_heads: Chosen = None
    chosen_tokens: Chosen = None

    @property
    def cuts(self) -> bool:
        """Whether anything is left out, as far as can be said without a capture."""
        return (
            len(self.roles) < len(Role)
            or self.cuts_layers
            or self.cuts_heads
            or (self.chosen_tokens is not None)
        )

    @property
    def cuts_layers(self) -> bool:
        return self.chosen_layers is not None

    @property
    def cuts_heads(self) -> bool:
        return self.chosen_heads is not None

    def layers(self, manifest: Manifest, role: Role) -> tuple[int, ...]:
        """The chosen layers that have this role."""
        parts = manifest.parts_by_layer()
        chosen = resolve(self.chosen_layers, max(parts, default=-1) + 1, "layer")
        return tuple(layer for layer in chosen if layer in parts and role in parts[layer].roles)

    def heads(self, count: int) -> range | tuple[int, ...]:
        return resolve(self.chosen_heads, count, "kv head")

    def tokens(self, count: int) -> range | tuple[int, ...]:
        return resolve(self.chosen_tokens, count, "token")


def resolve(chosen: Chosen, count: int, word: str) -> range | tuple[int, ...]:
    """The numbers below `count` that are chosen; one out of range is refused."""
    if chosen is None:
        return range(count)
    numbers: set[int] = set()
    for each in chosen:
        if isinstance(each, slice):
            numbers.update(range(*each.indices(count)))
        elif -count <= each < count:
            numbers.add(each % count)
        else:
            raise UsageError("E101", f"{word} {each}: there are {count}")
    if not numbers:
        raise UsageError("E101", f"no {word} of {count} is chosen")
    return tuple(sorted(numbers))


def parse_choice(text: str | None, word: str) -> Chosen:
    """Numbers and ranges from text; UsageError where it is neither."""
    if text is None:
        return None
    chosen: list[int | slice] = []
    for item in text.split(","):
        match = ITEM.fullmatch(item.strip())
        if match is None or not item.strip():
            raise UsageError("E101", f'{word}s "{text}": numbers and ranges such as 0,5,100:200')
        start = int(match["start"]) if match["start"] else None
        if match["range"]:
            chosen.append(slice(start, int(match["stop"]) if match["stop"] else None))
        elif start is not None:
            chosen.append(start)
    return tuple(chosen)


def inside(chosen: range | tuple[int, ...], start: int, stop: int) -> tuple[int, int]:
    """Which places of `chosen`, ascending, lie in start:stop, as a half-open range of places."""
    return bisect_left(chosen, start), bisect_left(chosen, stop)

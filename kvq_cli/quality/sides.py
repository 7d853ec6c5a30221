"""sides: rows as they were and as they would come back, and the logits made of them.

Both are asked for more than once, block by block and candidate by candidate: rows are made when
somebody asks, and logits are kept by the names of their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Final, TypeAlias

from kvq_cli.quality.arithmetic import Floats
from kvq_cli.words import Role

ROOM: Final = 1 << 26  # bytes of logits


class Side:
    """Rows of a token range, (H, T, D), made when somebody asks. Equal names, equal rows."""

    def __init__(self, name: Hashable, make: Callable[[], Floats]) -> None:
        self.name, self._make = name, make

    @cached_property
    def rows(self) -> Floats:
        return self._make()


class Kept:
    """Logits that will be asked again, tile by tile, as many as there is room for."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._tiles: dict[Hashable, Floats] = {}

    def tile(self, name: Hashable, make: Callable[[], Floats]) -> Floats:
        found = self._tiles.get(name)
        if found is None:
            found = make()
            if found.nbytes <= self._room:
                self._tiles[name] = found
                self._room -= found.nbytes
        return found


Sides: TypeAlias = tuple[Side, Side]  # before and after
Read: TypeAlias = Callable[[Role, int, int], Sides]  # of a role and a token range

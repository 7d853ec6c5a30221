"""ranges: parts of the layers, heads or tokens, counted from either end.

Spec: formats/profile.md, section "A rule".

    [start, stop]    half-open, as a Python slice: negative counts from the end, and a stop
                     of null is the end
"""

from __future__ import annotations

from typing import Any, Final

from kvq_cli.contract.fields import U32, Fields, kind, shown
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

MAX_RANGES: Final = 256


@record
class Range:
    """Half-open; what it holds depends on the length it is resolved for."""

    start: int
    stop: int | None

    def resolve(self, length: int) -> tuple[int, int]:
        """Where it lies among `length`; empty where start is not below stop."""
        start, stop, _ = slice(self.start, self.stop).indices(length)
        return start, stop


def ranges_to_json(ranges: tuple[Range, ...] | None) -> list[list[int | None]] | None:
    return None if ranges is None else [[each.start, each.stop] for each in ranges]


def read_selector(fields: Fields, key: str) -> tuple[Range, ...] | None:
    """The ranges of a rule's member; None, for everything, where it is missing or null."""
    if not fields.has(key):
        return None
    ranges = read_ranges(fields, key)
    if not ranges:
        fields.refuse(key, "no range, so the rule matches nothing; null matches everything")
    return ranges


def read_ranges(fields: Fields, key: str) -> tuple[Range, ...]:
    """The ranges of a member, none where it is missing or null."""
    if not fields.has(key):
        return ()
    limit_length(fields, key, MAX_RANGES)
    pointer = fields.at(key)
    return tuple(_range(each, f"{pointer}/{at}") for at, each in enumerate(fields.array(key)))


def limit_length(fields: Fields, key: str, most: int) -> None:
    found = len(fields.array(key))
    if found > most:
        fields.refuse(key, f"{found} elements, at most {most} are allowed", "E404")


def _range(value: Any, pointer: str) -> Range:
    if not isinstance(value, list) or len(value) != 2:
        raise ProfileError("E401", f"{kind(value)}, a pair [start, stop] is expected", pointer)
    ends = Fields({"0": value[0], "1": value[1]}, pointer)
    start = ends.integer("0", -U32, U32)
    stop = ends.optional(ends.integer, "1", -U32, U32)
    # Ends of unlike sign meet only when the length is known; stop 0 is before everything.
    if stop is not None and (stop == 0 or ((start < 0) == (stop < 0) and start >= stop)):
        raise ProfileError("E401", f"{shown(value)} holds nothing at any length", pointer)
    return Range(start, stop)

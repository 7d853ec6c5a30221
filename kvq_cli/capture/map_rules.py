"""map_rules: a rule of a layout map: which tensors it is for, and what they hold.

Spec: formats/layout_map.md, section "A rule".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvq_cli import jsontext
from kvq_cli.capture.binding import LETTERS
from kvq_cli.capture.pattern import compiled
from kvq_cli.contract.fields import U32, Fields, shown
from kvq_cli.errors import ProfileError
from kvq_cli.record import record
from kvq_cli.words import Role

MAX_ROLES: Final = 16
MAX_OFFSET: Final = 65535
MAX_RANK: Final = 8
GROUPS: Final = ("layer", "head", "role")
BOTH: Final = "both"
ROLES: Final[Mapping[str, tuple[Role, ...]]] = {
    **{role.word: (role,) for role in Role},
    BOTH: tuple(Role),
}


@record
class MapRule:
    """Which tensors, and what they hold."""

    name: re.Pattern[str]
    file: re.Pattern[str] | None
    texts: tuple[str, ...]  # of both patterns, as they were written
    role: tuple[Role, ...] | None  # None: the group `role` tells it
    roles: Mapping[str, Role]
    axes: str
    lengths: Mapping[str, int]
    first_layer: int
    first_head: int


def read_rule(fields: Fields) -> MapRule:
    name = _pattern("name", fields)
    file = fields.optional(_pattern, "file", fields)
    groups = _groups(fields, name, file)
    role, roles = _roles(fields, told="role" in groups)
    both = role is not None and len(role) > 1
    axes = _axes(fields, both=both)
    rule = MapRule(
        name=name,
        file=file,
        texts=(fields.text("name"), *((fields.text("file"),) if file else ())),
        role=role,
        roles=roles,
        axes=fields.text("axes"),
        lengths=_lengths(fields, axes, both=both),
        first_layer=_offset(fields, "first_layer"),
        first_head=_offset(fields, "first_head"),
    )
    fields.done()
    return rule


def _pattern(key: str, fields: Fields) -> re.Pattern[str]:
    try:
        return compiled(fields.text(key))
    except ValueError as error:
        fields.refuse(key, str(error))


def _groups(fields: Fields, name: re.Pattern[str], file: re.Pattern[str] | None) -> set[str]:
    """The names of all groups."""
    groups: set[str] = set()
    for key, pattern in (("name", name), ("file", file)):
        for group in pattern.groupindex if pattern else ():
            if group not in GROUPS:
                fields.refuse(key, f'group "{group}" is not one of {", ".join(GROUPS)}')
            if group in groups:
                fields.refuse(key, f'group "{group}" is in the name already')
            groups.add(group)
    return groups


def _roles(fields: Fields, *, told: bool) -> tuple[tuple[Role, ...] | None, dict[str, Role]]:
    """A fixed role, or the table of what the group `role` may match."""
    if not told:
        word = fields.text("role")
        if word not in ROLES:
            fields.refuse("role", f"{shown(word)} is not one of {', '.join(ROLES)}")
        return ROLES[word], {}
    if fields.has("role"):
        fields.refuse("role", "the group role tells it already")
    table = fields.object("roles")
    texts, pointer = fields.member("roles")
    if not 1 <= len(texts) <= MAX_ROLES:
        error_id = "E404" if texts else "E401"
        fields.refuse("roles", f"{len(texts)} members, 1 to {MAX_ROLES} are allowed", error_id)
    found = {}
    for text in texts:
        word = table.text(text)
        if word not in (role.word for role in Role):
            where = jsontext.pointer(pointer, text)
            raise ProfileError("E401", f"{shown(word)} is not key or value", where)
        found[text] = Role[word.upper()]
    return None, found


def _axes(fields: Fields, *, both: bool) -> list[str]:
    """The letters of each dimension."""
    axes = fields.text("axes")
    groups = axes.split(",") if "," in axes else list(axes)
    letters = axes.replace(",", "")
    what = None
    if not set(letters) <= set(LETTERS) or len(set(letters)) < len(letters):
        what = f"letters of {LETTERS}, each at most once, are allowed"
    elif not {"T", "D"} <= set(letters):
        what = "T and D are needed"
    elif "" in groups or len(groups) > MAX_RANK:
        what = f"1 to {MAX_RANK} dimensions of a letter or more are allowed"
    elif ("R" in letters) != both:
        what = "R stands where a tensor has both roles, and there only"
    if what is not None:
        fields.refuse("axes", f"{shown(axes)}: {what}")
    return groups


def _lengths(fields: Fields, groups: list[str], *, both: bool) -> dict[str, int]:
    """Lengths of letters that share a dimension, all but one of each."""
    lengths = {"R": 2} if both else {}
    if fields.has("lengths"):
        members = fields.object("lengths")
        for letter in "".join(groups).replace("R", ""):
            if members.has(letter):
                lengths[letter] = members.integer(letter, 1, U32)
        members.done()
    for group in groups:
        untold = [letter for letter in group if letter not in lengths]
        if len(untold) > 1:
            told = " or ".join(untold)
            fields.refuse("axes", f"{group} share a dimension: lengths must tell {told}")
    return lengths


def _offset(fields: Fields, key: str) -> int:
    return fields.optional(fields.integer, key, -MAX_OFFSET, MAX_OFFSET) or 0

"""layout_map: kvq_layout_map_v1, the layout of a capture as its user writes it down.

Spec: formats/layout_map.md; formats/schemas/layout_map.schema.json.

    {"schema": "kvq_layout_map_v1",
     "rules": [{"name": "blk\\.(?P<layer>\\d+)\\.(?P<role>k|v)_cache",
                "roles": {"k": "key", "v": "value"},
                "axes": "HTD"}]}

Every refusal has the JSON pointer of the member.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.capture.facts import IDENTITY, facts_of, identity_of
from kvq_cli.capture.map_rules import MapRule, read_rule
from kvq_cli.contract.fields import Fields, shown
from kvq_cli.errors import FileError, ProfileError, reason
from kvq_cli.record import record

SCHEMA: Final = "kvq_layout_map_v1"
FAMILY: Final = re.compile(r"kvq_layout_map_v[0-9]+")
MAX_BYTES: Final = 1 << 20
MAX_RULES: Final = 256
MAX_DESCRIPTION: Final = 2000


@record
class LayoutMap:
    """Rules, of which the first that fits takes a tensor, and what the files do not tell."""

    rules: tuple[MapRule, ...]
    facts: Mapping[str, str]


def load_map(path: str | Path) -> LayoutMap:
    """The layout map in a file."""
    try:
        return parse_map(read_json(path))
    except ProfileError as error:
        error.args = (f"layout map {path}: {error}",)
        raise


def read_json(path: str | Path) -> Any:
    """The JSON value in a file, read strictly."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise FileError("E601", f"layout map {path}: {why}") from error
    return jsontext.loads(data, limit=MAX_BYTES)


def parse_map(value: Any) -> LayoutMap:
    """The layout map that a JSON value states; ProfileError where it states none."""
    fields = Fields(value)
    schema = fields.text("schema")
    if schema != SCHEMA and FAMILY.fullmatch(schema):
        found = f"{shown(schema)} needs another kvq, this one reads {SCHEMA}"
        fields.refuse("schema", found, "E403")
    fields.exactly("schema", SCHEMA)
    description = fields.optional(fields.text, "description") or ""
    if len(description) > MAX_DESCRIPTION:
        found = f"{len(description)} characters, at most {MAX_DESCRIPTION} are allowed"
        fields.refuse("description", found, "E404")
    rules = tuple(read_rule(each) for each in _listed(fields, "rules", MAX_RULES))
    found_map = LayoutMap(rules, _facts(fields))
    fields.done()
    return found_map


def _listed(fields: Fields, key: str, most: int) -> list[Fields]:
    count = len(fields.array(key))
    if count > most:
        fields.refuse(key, f"{count} elements, at most {most} are allowed", "E404")
    if count == 0:
        fields.refuse(key, "an empty array")
    return fields.objects(key)


def _facts(fields: Fields) -> dict[str, str]:
    """What containers carry of a model; ProfileError where they would not."""
    if not fields.has("facts"):
        return {}
    members = fields.object("facts")
    facts = {key: members.text(key) for key in IDENTITY if members.has(key)}
    members.done()
    for key, text in facts.items():
        notes = [*facts_of({key: text})[1], *identity_of({key: text})[1]]
        if notes or not text:
            members.refuse(key, notes[0] if notes else "an empty string")
    return facts

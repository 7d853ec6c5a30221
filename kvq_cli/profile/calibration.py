"""calibration: what was measured of a capture's rows, as an artifact that profiles can name.

Spec: formats/calibration.md.

The digest is of the content, sorted; figures are rounded when they are written, so that it is
that of the file and not of the machine that measured.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, Self

from kvq_cli import jsontext
from kvq_cli.contract.fields import Fields
from kvq_cli.digest import json_digest
from kvq_cli.record import record
from kvq_cli.words import Role

SCHEMA: Final = "kvq_calibration_v1"
AXES: Final = ("channel", "token")
MOST: Final = (1 << 53) - 1
LISTED: Final = 1024  # outlier channels of a role


@record
class RoleSummary:
    """The rows of one role: a token's channels of one head."""

    head_dim: int
    rows: int
    mean_norm: float
    max_norm: float
    outlier_rows: int
    outlier_channels: tuple[tuple[int, int, int], ...]  # layer, kv head, channel
    mean_energy: float  # part of the energy that lies in the channels' means
    axis: str

    @classmethod
    def from_json(cls, fields: Fields) -> Self:
        channels = _places(fields, "outlier_channels")
        axis = fields.text("axis")
        if axis not in AXES:
            fields.refuse("axis", f"not one of {', '.join(AXES)}")
        found = cls(
            head_dim=fields.integer("head_dim", 1, MOST),
            rows=fields.integer("rows", 1, MOST),
            mean_norm=_measured(fields, "mean_norm"),
            max_norm=_measured(fields, "max_norm"),
            outlier_rows=fields.integer("outlier_rows", 0, MOST),
            outlier_channels=channels,
            mean_energy=_measured(fields, "mean_energy"),
            axis=axis,
        )
        fields.done()
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "head_dim": self.head_dim,
            "rows": self.rows,
            "mean_norm": self.mean_norm,
            "max_norm": self.max_norm,
            "outlier_rows": self.outlier_rows,
            "outlier_channels": [list(place) for place in self.outlier_channels],
            "mean_energy": self.mean_energy,
            "axis": self.axis,
        }


@record
class Calibration:
    """What is known of a capture, and what is recommended for more of its kind."""

    layers: int
    kv_heads: tuple[int, ...]  # a number a layer
    roles: dict[Role, RoleSummary]
    first_tokens: int
    profile: str | None  # the smallest built-in one under the budget that was given
    bits_per_element: float | None  # of its pages

    @classmethod
    def from_json(cls, value: Any) -> Self:
        fields = Fields(value)
        fields.exactly("schema", SCHEMA)
        heads = fields.value("kv_heads")
        if not isinstance(heads, list) or not all(type(each) is int and each > 0 for each in heads):
            fields.refuse("kv_heads", "an array of whole numbers is expected")
        roles = {
            role: RoleSummary.from_json(fields.object(role.word))
            for role in Role
            if fields.has(role.word)
        }
        found = cls(
            layers=fields.integer("layers", 1, MOST),
            kv_heads=tuple(heads),
            roles=roles,
            first_tokens=fields.integer("first_tokens", 0, MOST),
            profile=fields.optional(fields.text, "profile"),
            bits_per_element=(
                _measured(fields, "bits_per_element") if fields.has("bits_per_element") else None
            ),
        )
        if len(heads) != found.layers:
            fields.refuse("kv_heads", f"{len(heads)} numbers for {found.layers} layers")
        fields.done()
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "layers": self.layers,
            "kv_heads": list(self.kv_heads),
            **{
                role.word: self.roles[role].to_json() if role in self.roles else None
                for role in Role
            },
            "first_tokens": self.first_tokens,
            "profile": self.profile,
            "bits_per_element": self.bits_per_element,
        }

    def digest(self) -> str:
        return json_digest(SCHEMA, jsontext.canonical(self.to_json()))


def _measured(fields: Fields, key: str) -> float:
    number = fields.number(key) + 0.0
    if number < 0:
        fields.refuse(key, "less than 0")
    return number


def _places(fields: Fields, key: str) -> tuple[tuple[int, int, int], ...]:
    """At most LISTED places, ascending and all different."""
    value = fields.value(key)
    if not isinstance(value, list) or not all(map(_is_place, value)):
        fields.refuse(key, "an array of [layer, head, channel] is expected")
    if len(value) > LISTED:
        fields.refuse(key, f"{len(value)} channels, at most {LISTED} are allowed", "E404")
    if any(one >= other for one, other in pairwise(value)):
        fields.refuse(key, "not ascending")
    return tuple((int(a), int(b), int(c)) for a, b, c in value)


def _is_place(value: Any) -> bool:
    whole = isinstance(value, list) and len(value) == 3
    return whole and all(type(each) is int and each >= 0 for each in value)

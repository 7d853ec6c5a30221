"""compact: the JSON text that digests are taken over.

Spec: formats/contract.md, section "Compact JSON".

Members stand in declaration order, never sorted; no space; text is raw UTF-8; floats are
written by kvq_cli.contract.numbers. This is not kvq_cli.jsontext.canonical, which sorts.
"""

from __future__ import annotations

import dataclasses
import json
from enum import StrEnum
from typing import Any

from kvq_cli.contract.numbers import f32_text, f64_text


class Singles(list[float]):
    """Numbers that are float32 and written as such."""


def members(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON values, in declaration order."""
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}


def write(value: Any) -> str:
    """Compact JSON of a value that holds only JSON types."""
    if isinstance(value, dict):
        return (
            "{" + ",".join(f"{write(key)}:{write(member)}" for key, member in value.items()) + "}"
        )
    if isinstance(value, Singles):
        return "[" + ",".join(map(f32_text, value)) + "]"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    if isinstance(value, float):
        return f64_text(value)
    # Strings, integers of any size, booleans and null are written alike by json.
    return json.dumps(value, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(element) for element in value]
    if isinstance(value, bytes):
        return list(value)
    return value.to_json() if hasattr(value, "to_json") else value

"""variants: codecs of the registry with their parameters varied, for tests that run over all.

A codec comes with its defaults, then with every other value of one parameter at a time that a
Literal or bool of it allows, then as COMBINED has it: parameters that meet in its code.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

COMBINED: dict[str, list[dict[str, Any]]] = {
    "int8": [{"axis": "channel", "center": True}, {"scale": "f16", "center": True}],
    "fp8_e4m3": [{"scale": "f16", "center": True}],
    "fp8_e5m2": [{"scale": "f16", "center": True}],
    "int4": [
        {"zero_point": True, "scale": "f32"},
        {"zero_point": True, "center": True, "group": 32},
        {"scale": "f32", "center": True},
    ],
    "kivi": [
        {"axis": "token", "bits": 2},
        {"axis": "token", "bits": 3, "scale": "f32"},
        {"axis": "token", "bits": 8, "group": 64},
        {"bits": 8, "scale": "f32"},
        {"bits": 2, "scale": "f32", "group": 128},
    ],
    "fibquant": [
        {"block": 2, "size": 64, "center": True, "norm": "f32", "seed": 7},
        {"size": 32, "rotation": "haar", "center": True, "norm_correction": False},
    ],
    "turboquant_mse": [
        {"bits": 3, "center": True, "norm": "f32", "seed": 7},
        {"bits": 2, "rotation": "haar", "center": True, "norm_correction": False},
    ],
    "turboquant_prod": [
        {"bits": 3, "center": True, "norm": "f32", "seed": 7},
        {"bits": 2, "rotation": "haar", "center": True},
    ],
}


def choices(hint: Any) -> list[Any]:
    """The values that a type hint spells out."""
    if get_origin(hint) in (Union, types.UnionType):
        return [value for one in get_args(hint) for value in choices(one)]
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    return [False, True] if hint is bool else []


def variants(kind: type[Any]) -> Iterator[Any]:
    """Instances of a codec, the one with its defaults first."""
    codec = kind()
    yield codec
    hints = get_type_hints(kind)
    for field in fields(kind):
        for value in choices(hints[field.name]):
            if value != getattr(codec, field.name):
                try:
                    yield replace(codec, **{field.name: value})
                except ValueError:
                    continue  # a rule across parameters forbids it
    for params in COMBINED.get(kind.name, []):
        yield replace(codec, **params)

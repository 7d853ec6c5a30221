"""variants: codecs of the registry with their parameters varied, for tests that run over all.

A codec comes with its defaults, then with every other value of one parameter at a time that a
Literal or bool of it allows, then as COMBINED has it: parameters that meet in its code.

fib_quant has no defaults: its tables fit one number of channels. `suited` gives such a codec for
any other number, and TABLES what all of them need: `Scratch(TABLES)`. A codec that asks where its
pages lie is bound to such a table too, with a group for each number of heads; `at` gives a page
its place among them.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.codecs.transform import STEP
from kvq_cli.contract.compat.rotation import rotation
from kvq_cli.page import PageSpec
from kvq_cli.planes import table_spec
from kvq_cli.words import Place, Role
from support.bases import Calibration, calibration, group, turn

TABLES: dict[str, Any] = {}

BOOKS = ((2, 256), (4, 1024), (4, 4096), (8, 256), (16, 256))
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
        *({"block": block, "size": size} for block, size in BOOKS),
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
    if kind is FibQuant:
        yield from map(fib_quant_of, (FIB_QUANT, *FIB_QUANT_VARIANTS))
        return
    if kind.placed:
        yield from (suited(kind(step=step, turned=turned), 64) for step, turned in STEPS)
        return
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


# Channels, block, codewords, axis: indices of whole bytes, of parts of bytes, and unused ones.
FIB_QUANT = (64, 4, 16, "token")
FIB_QUANT_VARIANTS = ((64, 4, 256, "channel"), (64, 2, 5, "token"), (64, 8, 300, "channel"))


@cache
def fib_quant_of(params: tuple[int, int, int, str]) -> FibQuant:
    """A rotation as the reference has it, and codewords that nobody trained."""
    dim, most, size, axis = params
    block = max(width for width in range(1, most + 1) if dim % width == 0)
    words = np.random.default_rng(size).standard_normal((size, block)) / np.sqrt(dim)
    tables = rotation(dim, dim).matrix, np.clip(words, -1, 1).astype("<f4")
    digests = [table_spec(table).digest for table in tables]
    TABLES.update(zip(digests, tables, strict=True))
    return FibQuant(dim, block, size, *digests, "blake3:" + "0" * 64, axis)


def suited(codec: Any, channels: int) -> Any:
    """The codec, or one like it, for pages of so many channels."""
    if codec.placed:
        bound = basis_of(channels)
        return replace(codec, basis=bound.digest, size=bound.table.nbytes)
    if not isinstance(codec, FibQuant):
        return codec
    return fib_quant_of((channels, codec.block, codec.size, codec.axis))


# Steps that leave sums of products below 2**24, or do not; with positions undone, and without.
STEPS = ((STEP, True), (STEP // 32, True), (STEP // 4, False))
HEADS, POSITION = 4, 5


@cache
def basis_of(channels: int) -> Calibration:
    """Groups of keys of a layer, layer n of n heads; all channels turn but, of some, the last."""
    pairs = channels // 2
    groups = [
        group(Role.KEY, heads, 1, heads, channels, turn=0 if pairs else None)
        for heads in range(1, HEADS + 1 if channels <= 256 else 2)
    ]
    turns = [turn(pairs, interleaved=channels % 3 == 0)] if pairs else []
    made = calibration(groups, turns)
    TABLES.update(made.tables())
    return made


def at(codec: Any, spec: PageSpec) -> PageSpec:
    """The spec of a page, with a place where the codec asks for one."""
    if not codec.placed:
        return spec
    return replace(spec, place=Place(Role.KEY, spec.heads, 1, POSITION))

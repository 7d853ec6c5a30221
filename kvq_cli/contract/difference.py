"""difference: which field makes two shapes, or two shape digests, differ.

Spec: formats/contract.md, section "Which field differs".

A KV profile holds the digest of its shape and not the shape. The field is found by search:
each field of the capture's shape in turn takes every plausible value until the digest is the
profile's. What else the profile says of its shape (role, head_dim) is put in first.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import Any, Final, TypeAlias

from blake3 import blake3

from kvq_cli.contract import compact
from kvq_cli.contract.shape import COUNTS, SCHEMA, KvTensorShapeV1
from kvq_cli.contract.words import KvAttentionKind, KvDType, KvRole, KvRopeState
from kvq_cli.digest import PREFIX

# 131,072 tokens are the longest common context; all the rest of a search is a tenth of it.
MAX_TRIED: Final = {"tokens": 131_072, "head_dim": 1_024}
MAX_TRIED_COUNT: Final = 512  # batch, layers and heads

Members: TypeAlias = dict[str, Any]

_WORDS: Final[dict[str, type[StrEnum]]] = {
    "role": KvRole,
    "attention_kind": KvAttentionKind,
    "dtype": KvDType,
    "rope_state": KvRopeState,
}
_HOLE: Final = "?"


def differing_fields(a: KvTensorShapeV1, b: KvTensorShapeV1) -> tuple[str, ...]:
    """The names of the fields in which two shapes differ, in declaration order."""
    return _differing(a.to_json(), b.to_json())


def explain(actual: KvTensorShapeV1, digest: str, role: KvRole, head_dim: int) -> str:
    """How `actual` differs from the shape that has this digest, role and head_dim."""
    ours = actual.to_json()
    for base in _bases(actual, role, head_dim):
        theirs = _search(base.to_json(), bytes.fromhex(digest.removeprefix(PREFIX)))
        if theirs is not None:
            return "; ".join(
                f"{name}: the profile is for {theirs[name]}, the capture has {ours[name]}"
                for name in _differing(ours, theirs)
            )
    return f"more than one field differs, or tokens beyond {MAX_TRIED['tokens']}"


def _differing(a: Members, b: Members) -> tuple[str, ...]:
    return tuple(name for name in a if a[name] != b[name])


def _bases(actual: KvTensorShapeV1, role: KvRole, head_dim: int) -> Iterator[KvTensorShapeV1]:
    """The capture's shape with all that is known of the profile's put in."""
    states = [actual.rope_state]
    if role != actual.role:
        keys = [KvRopeState.POST_ROPE, KvRopeState.PRE_ROPE]
        states = keys if role is KvRole.KEY else [KvRopeState.NOT_APPLICABLE]
    for state in states:
        yield dataclasses.replace(actual, role=role, head_dim=head_dim, rope_state=state)


def _search(base: Members, target: bytes) -> Members | None:
    """The members of digest `target` that are `base` but for one variation."""
    for names, texts in _variations(base):
        holed = compact.write(base | dict.fromkeys(names, _HOLE))
        pieces = f"{SCHEMA}\0{holed}".encode().split(f'"{_HOLE}"'.encode())
        for text in texts:
            if blake3(text.join(pieces)).digest() == target:
                return base | dict.fromkeys(names, json.loads(text))
    return None


def _variations(base: Members) -> Iterator[tuple[tuple[str, ...], Iterable[bytes]]]:
    """Fields that vary together, and the JSON texts they take; short lists first."""
    for name, words in _WORDS.items():
        yield (name,), [f'"{word}"'.encode() for word in words]
    groups: list[tuple[str, ...]] = [(name,) for name in COUNTS if name != "tokens"]
    # Multi-head attention has as many query heads as kv heads: neither differs alone.
    if base["attention_kind"] == KvAttentionKind.MHA:
        groups.append(("kv_heads", "query_heads"))
    for names in (*groups, ("tokens",)):
        high = MAX_TRIED.get(names[0], MAX_TRIED_COUNT)
        yield names, (b"%d" % count for count in range(1, high + 1))

"""facts: the shape objects of a capture, from its tensors, its metadata and the user's word.

Spec: formats/contract.md, section "Shape"; formats/container.md, section "Header".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.capture.facts import IDENTITY, Facts, facts_of, identity_of
from kvq_cli.capture.layout import Capture, LayerShape
from kvq_cli.contract.difference import differing_fields
from kvq_cli.contract.shape import SCHEMA, KvTensorShapeV1
from kvq_cli.errors import (
    CaptureError,
    ExpectationError,
    FileError,
    ProfileError,
    UsageError,
    reason,
)
from kvq_cli.record import record
from kvq_cli.words import DType, Role

MAX_SHAPE_FILE: Final = 1 << 16
KNOWN_KEYS: Final = tuple(IDENTITY)


@record
class PartShape:
    """A set of layers of one shape, and what is known of it for each role."""

    layers: tuple[int, ...]
    batch: int
    heads: int
    tokens: int
    roles: dict[Role, tuple[int, DType]]

    def shape_json(self, role: Role, facts: Facts) -> dict[str, Any]:
        """The eleven fields of the shape contract, None where nobody told."""
        channels, dtype = self.roles[role]
        rope = facts.rope_state if role is Role.KEY else "not_applicable"
        return {
            "schema_version": SCHEMA,
            "role": role.word,
            "attention_kind": facts.attention_kind,
            "batch": self.batch,
            "layers": len(self.layers),
            "kv_heads": self.heads,
            "query_heads": facts.query_heads,
            "tokens": self.tokens,
            "head_dim": channels,
            "dtype": dtype.lower(),
            "rope_state": rope,
        }


def part_shapes(layers: Iterable[LayerShape]) -> tuple[PartShape, ...]:
    """Layers of one shape together, in order of their first layer."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for layer in layers:
        shape = (layer.batch, layer.heads, layer.tokens, layer.key, layer.value)
        groups.setdefault(shape, []).append(layer.layer)
    parts = []
    for (batch, heads, tokens, key, value), numbers in groups.items():
        roles = {
            role: each for role, each in ((Role.KEY, key), (Role.VALUE, value)) if each is not None
        }
        parts.append(PartShape(tuple(numbers), batch, heads, tokens, roles))
    return tuple(parts)


def typed_shape(shape: Mapping[str, Any]) -> KvTensorShapeV1 | None:
    """The shape as a value, or None where a field is not known."""
    if None in shape.values():
        return None
    return KvTensorShapeV1.from_json(dict(shape))


def with_user_facts(capture: Capture, meta: Mapping[str, str], shape: Path | None) -> Capture:
    """The capture with what the user says of it; a contradiction is refused."""
    unknown = [key for key in meta if key not in KNOWN_KEYS]
    if unknown:
        raise UsageError(
            "E101", f"--meta {unknown[0]} is unknown; known keys: {', '.join(KNOWN_KEYS)}"
        )
    facts, notes = facts_of(meta)
    if notes:
        raise UsageError("E101", f"--meta: {notes[0]}")
    identity, notes = identity_of(meta)
    if notes:
        raise UsageError("E101", f"--meta: {notes[0]}")
    told = capture.facts
    for each in (facts, _facts_of_shape(shape, capture)):
        told = _merged(told, each)
    told_capture = replace(capture, facts=told, identity={**capture.identity, **identity})
    wrong = _contradiction(told_capture)
    if wrong is None:
        return told_capture
    if meta or shape:
        raise UsageError("E101", f"--meta or --shape: {wrong}")
    # Metadata is text that anybody wrote; what cannot be true of the tensors is left out.
    note = f"metadata contradicts the tensors and is left out: {wrong}"
    facts = Facts(rope_state=told.rope_state)
    return replace(capture, facts=facts, notes=(*capture.notes, note))


def check_rows(capture: Capture) -> None:
    """CaptureError for a capture without rows that anything could be measured of."""
    if not capture.slabs:
        why = capture.doubt or "no tensor of keys or values is F16, BF16 or F32"
        raise CaptureError("E204", f"there is nothing to measure: {why}")


def _contradiction(capture: Capture) -> str | None:
    """Why the facts cannot be true of the tensors; None where they can."""
    kind, query = capture.facts.attention_kind, capture.facts.query_heads
    for heads in sorted({layer.heads for layer in capture.layers}):
        if query is not None and query % heads:
            return f"{query} query heads are not divisible by {heads} kv heads"
        if kind == "mha" and query not in (None, heads):
            return f"mha with {query} query heads and {heads} kv heads"
        if kind == "mqa" and heads != 1:
            return f"mqa with {heads} kv heads"
    return None


def load_shape(path: Path) -> KvTensorShapeV1:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FileError("E601", f"{path}: {reason(error)}") from error
    try:
        return KvTensorShapeV1.from_json(jsontext.loads(raw, limit=MAX_SHAPE_FILE))
    except ProfileError as error:
        error.args = (f"shape {path}: {error}",)
        raise


def _facts_of_shape(path: Path | None, capture: Capture) -> Facts:
    if path is None:
        return Facts()
    shape = load_shape(path)
    facts = Facts(
        attention_kind=str(shape.attention_kind),
        query_heads=shape.query_heads,
        rope_state=str(shape.rope_state) if shape.role == "key" else None,
    )
    role = Role[shape.role.name]
    for part in part_shapes(capture.layers):
        if role in part.roles:
            found = typed_shape(part.shape_json(role, _merged(capture.facts, facts)))
            assert found is not None or role is Role.KEY
            if found is not None and found == shape:
                return facts
    raise _other_shape(shape, capture, facts)


def _other_shape(shape: KvTensorShapeV1, capture: Capture, facts: Facts) -> ExpectationError:
    role = Role[shape.role.name]
    for part in part_shapes(capture.layers):
        if role in part.roles:
            found = typed_shape(part.shape_json(role, _merged(capture.facts, facts)))
            if found is not None:
                fields = ", ".join(differing_fields(shape, found))
                return ExpectationError(
                    "E802",
                    f"--shape {shape.digest()} is not the capture's {found.digest()}: {fields}",
                )
    return ExpectationError("E802", f"--shape is for a role that the capture lacks: {role.word}")


def _merged(told: Facts, more: Facts) -> Facts:
    for name in ("attention_kind", "query_heads", "rope_state"):
        before, after = getattr(told, name), getattr(more, name)
        if before is not None and after is not None and before != after:
            raise ProfileError("E402", f"the capture says {name} {before}, the user {after}")
    return Facts(
        attention_kind=told.attention_kind or more.attention_kind,
        query_heads=told.query_heads or more.query_heads,
        rope_state=told.rope_state or more.rope_state,
    )


def shapes_of(capture: Capture) -> dict[Role, KvTensorShapeV1 | None]:
    """The one shape of each role, where all layers share it and all of it is known."""
    shapes: dict[Role, KvTensorShapeV1 | None] = {}
    for role in Role:
        parts = [part for part in part_shapes(capture.layers) if role in part.roles]
        whole = len(parts) == 1
        shapes[role] = typed_shape(parts[0].shape_json(role, capture.facts)) if whole else None
    return shapes

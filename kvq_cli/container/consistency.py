"""consistency: what the members of a header must say of each other.

Spec: formats/container.md, sections "Header" and "What a reader must refuse".

Tensors and parts describe the same rows, each once; a shape agrees with its part, and digests
of shapes and profiles are those of the objects beside them.
"""

from __future__ import annotations

import math
from typing import Any, Final, NoReturn, TypeAlias

from kvq_cli import digest, jsontext
from kvq_cli.container.manifest import MAX_PAGE, Manifest, Part, Rows, TensorEntry
from kvq_cli.container.partial import Partial
from kvq_cli.container.records import PIECE
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import SCHEMA, KvTensorShapeV1
from kvq_cli.errors import ContainerError, DigestError
from kvq_cli.words import ELEMENT_BITS, Role

PROFILE_SCHEMA: Final = "kvq_profile_v1"
HEADER_AT: Final = 64
# What a capture may not tell; null then.
OPEN_FIELDS: Final = {"attention_kind", "query_heads", "rope_state"}

Heads: TypeAlias = dict[tuple[Role, int], list[tuple[int, int]]]  # ranges, by role and layer


def check_manifest(manifest: Manifest) -> None:
    """ContainerError or ProfileError where two members contradict each other."""
    _check_tensors(manifest)
    if (manifest.continues is None) != (manifest.token_offset == 0):
        _refuse("a segment continues something and begins behind its tokens")
    if manifest.partial is not None:
        _check_partial(manifest, manifest.partial)
    for part in manifest.parts:
        for role in part.roles:
            _check_shape(part, role)
    named = [role for each in manifest.profiles for role in each["roles"]]
    if sorted(named) != [role.word for role in Role]:
        _refuse("profiles name each role once")
    for each in manifest.profiles:
        if _profile_digest(each["profile"]) != each["digest"]:
            raise DigestError("header: profile digest does not hold", HEADER_AT)


def _check_tensors(manifest: Manifest) -> None:
    heads: Heads = {}
    for tensor in manifest.tensors:
        bits = ELEMENT_BITS.get(tensor.dtype)
        if bits is None or math.prod(tensor.shape) * bits != 8 * tensor.nbytes:
            _refuse(f"tensor of {tensor.nbytes} bytes, not {tensor.dtype} {list(tensor.shape)}")
        if tensor.rows is not None:
            _check_rows(manifest, tensor, tensor.rows, heads)
    if len({(tensor.file, tensor.name) for tensor in manifest.tensors}) < len(manifest.tensors):
        _refuse("two tensors of one name")
    _check_files(manifest)
    _check_heads(manifest, heads)


def _check_files(manifest: Manifest) -> None:
    """Tensors stand in the order of their files, which are there and hold tensors."""
    numbers = [tensor.file for tensor in manifest.tensors]
    if numbers != sorted(numbers) or max(numbers, default=0) >= manifest.sources:
        _refuse("tensors are not in order of their files")
    if manifest.files and any(manifest.files[number].digest for number in set(numbers)):
        _refuse("a tensor of a file that holds none")


def _check_partial(manifest: Manifest, partial: Partial) -> None:
    """What is lost was once there."""
    if any(number >= manifest.sources for number in partial.files):
        _refuse("a lost file that is not there")
    held = [*manifest.held]
    if any(number >= len(held) or not held[number] for number in partial.tables):
        _refuse("a lost table that is not there")
    sizes = dict(enumerate(manifest.carried))
    for number, at in partial.tensors:
        if at < 0 or at % PIECE or at >= sizes.get(number, 0):
            _refuse("a lost piece of a tensor that is not there")


def _check_heads(manifest: Manifest, heads: Heads) -> None:
    """Tensors together hold each head of each layer once."""
    for layer, part in manifest.parts_by_layer().items():
        for role in part.roles:
            spans = sorted(heads.pop((role, layer), []))
            ends = [0, *(stop for _, stop in spans)]
            if ends[-1] != part.kv_heads or ends[:-1] != [start for start, _ in spans]:
                _refuse(f"tensors do not hold each {role.word} head of layer {layer} once")
    if heads:
        _refuse("tensors hold layers that no part has")


def _check_rows(manifest: Manifest, tensor: TensorEntry, rows: Rows, heads: Heads) -> None:
    """The rows are those of the parts; `heads` takes the ranges that they hold."""
    if math.prod(rows.lengths.values()) != math.prod(tensor.shape):
        _refuse("lengths of the axes do not multiply to the tensor's")
    if rows.packed * ELEMENT_BITS[tensor.dtype] // 8 > MAX_PAGE:
        _refuse(f"blocks of a tensor have more than {MAX_PAGE} bytes")
    parts = manifest.parts_by_layer()
    mine = rows.first_head, rows.first_head + rows.length("H")
    for layer in range(rows.first_layer, rows.first_layer + rows.length("L")):
        part = parts.get(layer)
        for role in rows.roles:
            shape = part.roles.get(role) if part else None
            if part is None or shape is None:
                _refuse(f"{role.word} tensor of layer {layer}, which is not there")
            if rows.packed and mine != (0, part.kv_heads):
                _refuse("a tensor of split tokens or channels does not hold all heads")
            lengths = (rows.length("B"), rows.tokens, rows.channels)
            if lengths != (part.batch, part.tokens, shape.head_dim):
                _refuse(f"tensor and part differ in the shape of layer {layer}")
            if tensor.dtype != shape.dtype:
                _refuse(f"tensor and part differ in the dtype of layer {layer}")
            heads.setdefault((role, layer), []).append(mine)


def _check_shape(part: Part, role: Role) -> None:
    stated = part.roles[role]
    expected: dict[str, Any] = {
        "schema_version": SCHEMA,
        "role": role.word,
        "batch": part.batch,
        "layers": sum(stop - start for start, stop in part.layers),
        "kv_heads": part.kv_heads,
        "tokens": part.tokens,
        "head_dim": stated.head_dim,
        "dtype": stated.dtype.lower(),
    }
    if role is Role.VALUE:
        expected["rope_state"] = "not_applicable"
    if stated.shape.keys() != expected.keys() | OPEN_FIELDS:
        _refuse("shape object has other members than the contract's")
    if any(stated.shape[key] != value for key, value in expected.items()):
        _refuse("shape object and part differ")
    complete = None not in stated.shape.values()
    told = KvTensorShapeV1.from_json(stated.shape).digest() if complete else None
    if (stated.shape_digest is None) != (told is None):
        _refuse("shape digest stands with a shape that is known in full, and only there")
    if stated.shape_digest != told:
        raise DigestError("header: shape digest does not hold", HEADER_AT)


def _profile_digest(profile: dict[str, Any]) -> str:
    if profile.get("schema") == PROFILE_SCHEMA:
        return digest.json_digest(PROFILE_SCHEMA, jsontext.canonical(profile))
    return KvCompressionProfileV1.from_json(profile).digest()


def _refuse(message: str) -> NoReturn:
    raise ContainerError("E304", f"header: {message}", HEADER_AT)

"""header: the header JSON read into a manifest, strictly.

Spec: formats/container.md, section "Header".

Members, types and limits are checked here; what members must say of each other is checked by
kvq_cli.container.consistency.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

from kvq_cli import digest, jsontext
from kvq_cli.container.manifest import (
    SCHEMA,
    TABLE_DTYPES,
    Manifest,
    Part,
    RoleShape,
)
from kvq_cli.container.partial import read_partial
from kvq_cli.container.preamble import MAX_HEADER, PARTIAL, REFERENCED
from kvq_cli.container.tensors import read_digest, read_files, read_tensor
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.errors import ContainerError, ProfileError
from kvq_cli.words import MAX_TABLE_BYTES, MAX_TABLES, DType, Role, TableSpec

PROBES: Final = ("none", "self", "capture", "file")
MAX_COUNT: Final = 1 << 31
MAX_TABLE_AXES: Final = 4
MAX_LAYERS: Final = 1 << 16  # also of layers times batch entries
MAX_HEADS: Final = 1 << 21  # times layers times batch entries


def read_manifest(raw: bytes, alignment: int, features: int) -> Manifest:
    """The manifest of a header whose digest held; ContainerError where it is outside the spec."""
    try:
        value = jsontext.loads(raw, limit=MAX_HEADER)
        if jsontext.canonical(value).encode() != raw:
            raise ContainerError("E304", "header JSON is not canonical", 64)
        manifest = _manifest(Fields(value), features)
    except ProfileError as error:
        raise ContainerError("E304", f"header {error}", 64) from error
    if manifest.alignment != alignment:
        raise ContainerError("E304", "header and preamble differ in alignment", 64)
    return manifest


def _manifest(header: Fields, features: int) -> Manifest:
    content, storage = header.object("content"), header.object("storage")
    header.done()
    content.exactly("schema", SCHEMA)
    manifest = Manifest(
        layout=content.text("layout"),
        identity=_identity(content.object("identity"), content.value("identity")),
        files=read_files(content),
        tensors=tuple(read_tensor(each) for each in content.objects("tensors")),
        parts=_parts(content),
        head_sets=_head_sets(content),
        codecs=tuple(_codec(each) for each in content.objects("codecs")),
        tables=_tables(content),
        profiles=tuple(_profile(each) for each in content.objects("profiles")),
        token_offset=content.integer("token_offset", 0, U64),
        continues=read_digest(content, "continues"),
        probe=content.text("probe"),
        queries_digest=read_digest(content, "queries_digest"),
        calibration_digest=read_digest(content, "calibration_digest"),
        partial=read_partial(content.object("partial")) if features & PARTIAL else None,
        alignment=storage.integer("alignment", 64, 1 << 21),
        entropy=storage.text("entropy"),
        level=storage.integer("level", 0, 22),
        writer=storage.text("writer"),
        referenced=storage.texts("referenced") if features & REFERENCED else (),
    )
    content.done()
    storage.done()
    if manifest.probe not in PROBES:
        content.refuse("probe", "unknown probe")
    if manifest.entropy not in ("zstd", "none"):
        storage.refuse("entropy", "unknown entropy codec")
    listed = [table.digest for table in manifest.tables if table.digest in manifest.referenced]
    if features & REFERENCED and (not listed or listed != [*manifest.referenced]):
        storage.refuse("referenced", "not digests of tables, in their order")
    if features & REFERENCED and manifest.calibration_digest is None:
        storage.refuse("referenced", "no calibration is named that has the tables")
    return manifest


def _identity(fields: Fields, value: dict[str, Any]) -> dict[str, str]:
    return {key: fields.text(key) for key in value}


def _parts(content: Fields) -> tuple[Part, ...]:
    parts = tuple(_part(each) for each in content.objects("parts"))
    spans = sorted(span for part in parts for span in part.layers)
    if any(left[1] > right[0] for left, right in pairwise(spans)):
        content.refuse("parts", "a layer lies in two parts")
    slabs = sum(part.batch * (stop - start) for part in parts for start, stop in part.layers)
    if slabs > MAX_LAYERS:
        content.refuse("parts", f"{slabs} layers times batch entries, at most {MAX_LAYERS}")
    heads = sum(
        part.batch * part.kv_heads * (stop - start) for part in parts for start, stop in part.layers
    )
    if heads > MAX_HEADS:
        content.refuse("parts", f"{heads} heads of layers and batch entries, at most {MAX_HEADS}")
    return parts


def _part(fields: Fields) -> Part:
    spans = []
    for span in fields.array("layers"):
        ok = isinstance(span, list) and len(span) == 2 and all(type(end) is int for end in span)
        if not ok or not 0 <= span[0] < span[1] <= MAX_LAYERS:
            fields.refuse("layers", "a layer range is [start, stop], ascending")
        spans.append((span[0], span[1]))
    roles = {role: fields.nullable(fields.object, role.word) for role in Role}
    if not any(roles.values()):
        fields.refuse("key", "a part has keys or values")
    part = Part(
        layers=tuple(spans),
        batch=fields.integer("batch", 1, MAX_COUNT),
        kv_heads=fields.integer("kv_heads", 1, 1 << 16),
        tokens=fields.integer("tokens", 1, 1 << 40),
        roles={role: _role_shape(each) for role, each in roles.items() if each is not None},
    )
    fields.done()
    return part


def _role_shape(fields: Fields) -> RoleShape:
    shape = RoleShape(
        head_dim=fields.integer("head_dim", 1, 1 << 20),
        dtype=fields.choice("dtype", DType),
        shape=fields.value("shape"),
        shape_digest=read_digest(fields, "shape_digest"),
    )
    fields.object("shape")
    fields.done()
    return shape


def _head_sets(content: Fields) -> tuple[tuple[int, ...], ...]:
    sets = []
    for heads in content.array("head_sets"):
        ok = isinstance(heads, list) and heads and all(type(head) is int for head in heads)
        if not ok or heads != sorted(set(heads)) or not 0 <= heads[0] <= heads[-1] < 1 << 16:
            content.refuse("head_sets", "a head set is a strictly ascending array of heads")
        sets.append(tuple(heads))
    return tuple(sets)


def _codec(fields: Fields) -> dict[str, Any]:
    codec = {
        "name": fields.text("name"),
        "revision": fields.integer("revision", 1, 1 << 16),
        "params": fields.value("params"),
    }
    fields.object("params")
    fields.done()
    return codec


def _tables(content: Fields) -> tuple[TableSpec, ...]:
    if len(content.array("tables")) > MAX_TABLES:
        content.refuse("tables", f"at most {MAX_TABLES} tables are allowed")
    tables = tuple(_table(each) for each in content.objects("tables"))
    if len({table.digest for table in tables}) < len(tables):
        content.refuse("tables", "two tables have one digest")
    total = sum(table.nbytes for table in tables)
    if total > MAX_TABLE_BYTES:
        content.refuse("tables", f"{total} bytes of tables, at most {MAX_TABLE_BYTES} are allowed")
    return tables


def _table(fields: Fields) -> TableSpec:
    table = TableSpec(
        dtype=fields.text("dtype"),
        shape=fields.integers("shape", 1, MAX_TABLE_BYTES),
        digest=fields.text("digest"),
    )
    fields.done()
    if table.dtype not in TABLE_DTYPES:
        fields.refuse("dtype", f"only {', '.join(TABLE_DTYPES)} are allowed")
    if not 1 <= len(table.shape) <= MAX_TABLE_AXES:
        fields.refuse("shape", f"a table has 1 to {MAX_TABLE_AXES} axes")
    if not digest.is_text(table.digest):
        fields.refuse("digest", "not a digest")
    return table


def _profile(fields: Fields) -> dict[str, Any]:
    profile = {
        "roles": list(fields.texts("roles")),
        "profile": fields.value("profile"),
        "digest": fields.text("digest"),
    }
    fields.object("profile")
    fields.done()
    return profile

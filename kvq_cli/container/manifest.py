"""manifest: the header JSON: what the compressed cache is, and how this file holds it.

Spec: formats/container.md, section "Header".

The container knows profiles and codecs as JSON only; kvq_cli.pipeline gives them meaning.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field
from typing import Any, Final

from kvq_cli import digest, jsontext
from kvq_cli.container.partial import Partial
from kvq_cli.container.preamble import PARTIAL, REFERENCED
from kvq_cli.record import record
from kvq_cli.words import DType, Role, TableSpec

SCHEMA: Final = "kvq_container_v1"
MAX_PAGE: Final = 1 << 26  # bytes of a page in the source dtype
TABLE_DTYPES: Final = ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<f2", "<f4", "<f8")


@record
class FileEntry:
    """One file of a folder; `digest` is that of one that holds no tensors."""

    name: str
    digest: str | None

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "digest": self.digest}


@record
class Rows:
    """Where a tensor has the rows of keys, of values, or of both."""

    roles: tuple[Role, ...]
    axes: str
    lengths: dict[str, int]
    first_layer: int
    first_head: int
    tokens: int  # that are stored; those behind are zeros

    def length(self, letter: str) -> int:
        """The length of an axis; 1 where there is none."""
        return self.lengths.get(letter, 1)

    @property
    def room(self) -> int:
        """Tokens that there are, the zeros behind the stored ones too."""
        return self.length("T") * self.length("t") * self.length("u")

    @property
    def channels(self) -> int:
        return self.length("D") * self.length("d")

    @property
    def packed(self) -> int:
        """Elements of a block in which tokens or channels are split; 0 where none are."""
        if not {*"ud"} & {*self.lengths}:
            return 0
        return math.prod(self.length(letter) for letter in "HtuDd")

    def to_json(self) -> dict[str, Any]:
        return {
            "roles": [role.word for role in self.roles],
            "axes": self.axes,
            "lengths": self.lengths,
            "first_layer": self.first_layer,
            "first_head": self.first_head,
            "tokens": self.tokens,
        }


@record
class TensorEntry:
    """One tensor of the source; `rows` is None where it is not stored as pages."""

    file: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    rows: Rows | None

    def to_json(self) -> dict[str, Any]:
        return {
            "file": self.file,
            "name": self.name,
            "dtype": self.dtype,
            "shape": list(self.shape),
            "nbytes": self.nbytes,
            "rows": None if self.rows is None else self.rows.to_json(),
        }


@record
class RoleShape:
    """What is particular to keys or values of a part."""

    head_dim: int
    dtype: DType
    shape: dict[str, Any]
    shape_digest: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "head_dim": self.head_dim,
            "dtype": str(self.dtype),
            "shape": self.shape,
            "shape_digest": self.shape_digest,
        }


@record
class Part:
    """A set of layers of one shape."""

    layers: tuple[tuple[int, int], ...]
    batch: int
    kv_heads: int
    tokens: int
    roles: dict[Role, RoleShape]

    def to_json(self) -> dict[str, Any]:
        return {
            "layers": [list(span) for span in self.layers],
            "batch": self.batch,
            "kv_heads": self.kv_heads,
            "tokens": self.tokens,
            **{
                role.word: self.roles[role].to_json() if role in self.roles else None
                for role in Role
            },
        }


@record
class Manifest:
    """The header: `content` as values, `storage` as values."""

    layout: str
    identity: dict[str, str]
    files: tuple[FileEntry, ...] | None  # None: the source is one file, whose name is nobody's
    tensors: tuple[TensorEntry, ...]
    parts: tuple[Part, ...]
    head_sets: tuple[tuple[int, ...], ...]
    codecs: tuple[dict[str, Any], ...]
    tables: tuple[TableSpec, ...]
    profiles: tuple[dict[str, Any], ...]
    alignment: int
    entropy: str
    level: int
    writer: str
    token_offset: int = 0
    continues: str | None = None
    probe: str = "none"
    queries_digest: str | None = None
    calibration_digest: str | None = None
    partial: Partial | None = None
    referenced: tuple[str, ...] = ()  # digests of tables that are not in this file
    _by_layer: dict[int, Part] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spans = sorted(
            ((span, part) for part in self.parts for span in part.layers), key=lambda each: each[0]
        )
        by_layer = {layer: part for span, part in spans for layer in range(*span)}
        object.__setattr__(self, "_by_layer", by_layer)

    @property
    def source_bytes(self) -> int:
        """Bytes of all source tensors: what a ratio is measured against."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def carried(self) -> Iterator[int]:
        """Bytes of each source tensor that TENS chunks hold: none of those stored as pages."""
        return (tensor.nbytes if tensor.rows is None else 0 for tensor in self.tensors)

    @property
    def held(self) -> Iterator[int]:
        """Bytes of each table that TABL chunks hold: none of those that lie elsewhere."""
        return (0 if table.digest in self.referenced else table.nbytes for table in self.tables)

    @property
    def features(self) -> int:
        """The incompatible features that a reader must know."""
        return (PARTIAL if self.partial else 0) | (REFERENCED if self.referenced else 0)

    @property
    def sources(self) -> int:
        """How many files the source has."""
        return 1 if self.files is None else len(self.files)

    def parts_by_layer(self) -> dict[int, Part]:
        """Which part each layer lies in, layers ascending."""
        return self._by_layer

    def content(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "layout": self.layout,
            "identity": self.identity,
            "files": None if self.files is None else [file.to_json() for file in self.files],
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "parts": [part.to_json() for part in self.parts],
            "head_sets": [list(heads) for heads in self.head_sets],
            "codecs": list(self.codecs),
            "tables": [table.to_json() for table in self.tables],
            "profiles": list(self.profiles),
            "token_offset": self.token_offset,
            "continues": self.continues,
            "probe": self.probe,
            "queries_digest": self.queries_digest,
            "calibration_digest": self.calibration_digest,
            **({"partial": self.partial.to_json()} if self.partial else {}),
        }

    def storage(self) -> dict[str, Any]:
        return {
            "alignment": self.alignment,
            "entropy": self.entropy,
            "level": self.level,
            "writer": self.writer,
            **({"referenced": list(self.referenced)} if self.referenced else {}),
        }

    def to_bytes(self) -> bytes:
        value = {"content": self.content(), "storage": self.storage()}
        return jsontext.canonical(value).encode()

    def content_digest(self) -> bytes:
        text = jsontext.canonical(self.content()).encode()
        return digest.tagged("kvq/v1/content-json", [text])

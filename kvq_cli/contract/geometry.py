"""geometry: KvPageGeometryV1, how tokens are grouped into pages of fixed-size blocks.

Spec: formats/contract.md, section "Page geometry".

    pages = ceil(tokens / tokens_per_page)      raw_vector_bytes = 4 · head_dim

A block holds one vector; encoded_block_bytes is what a block reserves for random access.
"""

from __future__ import annotations

from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U32, Fields
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

SCHEMA: Final = "fib_quant_kv_page_geometry_v1"


@record(kw_only=True)
class KvPageGeometryV1:
    """The fields, in digest order."""

    schema_version: str = SCHEMA
    tokens_per_page: int
    vectors_per_block: int = 1
    head_dim: int
    encoded_block_bytes: int
    raw_vector_bytes: int

    @classmethod
    def new(cls, tokens_per_page: int, head_dim: int, encoded_block_bytes: int) -> Self:
        """A valid geometry of one-vector blocks."""
        geometry = cls(
            tokens_per_page=tokens_per_page,
            head_dim=head_dim,
            encoded_block_bytes=encoded_block_bytes,
            raw_vector_bytes=_raw_vector_bytes(head_dim),
        )
        geometry.validate()
        return geometry

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        geometry = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            tokens_per_page=fields.integer("tokens_per_page"),
            vectors_per_block=fields.integer("vectors_per_block"),
            head_dim=fields.integer("head_dim"),
            encoded_block_bytes=fields.integer("encoded_block_bytes"),
            raw_vector_bytes=fields.integer("raw_vector_bytes"),
        )
        fields.done()
        geometry._check_rules(fields)
        return geometry

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        """The digest of a valid geometry; an invalid one has none."""
        self.validate()
        return digest.json_digest(SCHEMA, self.compact())

    def validate(self, pointer: str = "") -> None:
        """ProfileError where no shape could have this geometry."""
        self.from_json(self.to_json(), pointer)

    def validate_for_shape(self, shape: KvTensorShapeV1, pointer: str = "") -> None:
        """ProfileError where this shape cannot have this geometry."""
        shape.validate()
        self.validate(pointer)
        if self.tokens_per_page > shape.tokens:
            found = f"tokens_per_page {self.tokens_per_page} is not in 1..{shape.tokens}"
            raise ProfileError(
                "E402", f"{found}, the capture's tokens", f"{pointer}/tokens_per_page"
            )
        if self.head_dim != shape.head_dim:
            found = f"head_dim {self.head_dim} differs from the capture's {shape.head_dim}"
            raise ProfileError("E402", found, f"{pointer}/head_dim")

    def page_count(self, shape: KvTensorShapeV1) -> int:
        self.validate_for_shape(shape)
        return -(-shape.tokens // self.tokens_per_page)

    def _check_rules(self, fields: Fields) -> None:
        for name in ("tokens_per_page", "head_dim", "encoded_block_bytes"):
            if getattr(self, name) == 0:
                fields.refuse(name, f"{name} must be greater than 0")
        if self.vectors_per_block != 1:
            found = f"{self.vectors_per_block} vectors per block"
            fields.refuse("vectors_per_block", f"{found}, only 1 is supported", "E403")
        expected = _raw_vector_bytes(self.head_dim)
        if self.raw_vector_bytes != expected:
            found = f"{self.raw_vector_bytes} bytes, head_dim float32 values are {expected}"
            fields.refuse("raw_vector_bytes", found)


def _raw_vector_bytes(head_dim: int) -> int:
    # The reference saturates at its integer width; a digest may depend on it.
    return min(4 * head_dim, U32)

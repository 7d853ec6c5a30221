"""fib_code: FibCodeV1, one encoded vector with all that names its tables.

Spec: formats/fibquant-compat.md, section "Vector code".
"""

from __future__ import annotations

from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U8, Fields
from kvq_cli.contract.words import NormFormat
from kvq_cli.record import record

SCHEMA: Final = "fib_code_v1"


@record(kw_only=True)
class FibCodeV1:
    """The fields, in digest order."""

    schema_version: str = SCHEMA
    profile_digest: str
    codebook_digest: str
    rotation_digest: str
    ambient_dim: int
    block_dim: int
    norm_format: NormFormat
    norm_payload: bytes
    wire_index_bits: int
    block_count: int
    indices: bytes

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        code = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            profile_digest=fields.text("profile_digest"),
            codebook_digest=fields.text("codebook_digest"),
            rotation_digest=fields.text("rotation_digest"),
            ambient_dim=fields.integer("ambient_dim"),
            block_dim=fields.integer("block_dim"),
            norm_format=fields.choice("norm_format", NormFormat),
            norm_payload=bytes(fields.integers("norm_payload", 0, U8)),
            wire_index_bits=fields.integer("wire_index_bits", 0, U8),
            block_count=fields.integer("block_count"),
            indices=bytes(fields.integers("indices", 0, U8)),
        )
        fields.done()
        return code

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        return digest.json_digest(SCHEMA, self.compact())

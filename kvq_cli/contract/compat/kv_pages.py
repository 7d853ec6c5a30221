"""kv_pages: KvEncodedBlockV1 and KvEncodedPageV1, the JSON that fib_quant keeps tensors in.

Spec: formats/fibquant-compat.md, section "Pages".

    block   one vector: a vector code, or its values
    page    the blocks of a range of tokens: batch, layer, kv head, token, the last fastest

These are for conformance and exchange. A container stores no such pages.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Final, Self, TypeAlias

from kvq_cli import digest
from kvq_cli.contract import compact, shape
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.record import record

BLOCK_SCHEMA: Final = "fib_quant_kv_encoded_block_v1"
PAGE_SCHEMA: Final = "fib_quant_kv_encoded_page_v1"

Vector: TypeAlias = tuple[float, ...]  # float32 values


@record(kw_only=True)
class KvEncodedBlockV1:
    """The fields, in digest order."""

    schema_version: str = BLOCK_SCHEMA
    block_id: int
    batch: int
    layer: int
    kv_head: int
    token: int
    vector_count: int = 1
    fixed_size_bytes: int
    raw_fallback: bool
    reason: str
    encoding: FibCodeV1 | Vector

    @property
    def place(self) -> tuple[int, int, int, int]:
        """Where the vector lies in (B, L, H, T)."""
        return (self.batch, self.layer, self.kv_head, self.token)

    def to_json(self) -> dict[str, Any]:
        value = compact.members(self)
        if isinstance(self.encoding, FibCodeV1):
            value["encoding"] = {"fib_quant": {"code": self.encoding.to_json()}}
        else:
            value["encoding"] = {"raw_f32": {"values": compact.Singles(self.encoding)}}
        return value


@record(kw_only=True)
class KvEncodedPageV1:
    """The fields, in digest order; page_digest is of those before it."""

    schema_version: str = PAGE_SCHEMA
    page_id: int
    token_start: int
    token_count: int
    source_tensor_digest: str
    profile_digest: str
    shape_digest: str
    shape_schema_version: str = shape.SCHEMA
    page_geometry: KvPageGeometryV1
    encoded_blocks: tuple[KvEncodedBlockV1, ...]
    raw_fallback_blocks: int
    page_digest: str = ""

    def signed(self) -> Self:
        """The page with the digest of its other fields."""
        return dataclasses.replace(self, page_digest=self.digest())

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        value = self.to_json()
        del value["page_digest"]
        return digest.json_digest(PAGE_SCHEMA, compact.write(value))


def raw_blocks(blocks: tuple[KvEncodedBlockV1, ...]) -> int:
    return len([block for block in blocks if block.raw_fallback])

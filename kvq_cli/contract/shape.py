"""shape: KvTensorShapeV1, the logical shape of the keys or the values of a cache.

Spec: formats/contract.md, section "Shape".

    [batch][layer][kv_head][token][channel], digested under "fib_quant_kv_tensor_shape_v1"

The digest binds every field, the token count too: another capture length, another digest.
"""

from __future__ import annotations

import math
from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.contract.layout import SHAPE_SCHEMA, KvCacheLayoutV1
from kvq_cli.contract.words import (
    KvAttentionKind,
    KvDType,
    KvRole,
    KvRopeState,
)
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

SCHEMA: Final = SHAPE_SCHEMA
AXES: Final = ("batch", "layers", "kv_heads", "tokens", "head_dim")
COUNTS: Final = ("batch", "layers", "kv_heads", "query_heads", "tokens", "head_dim")


@record(kw_only=True)
class KvTensorShapeV1:
    """The fields, in digest order."""

    schema_version: str = SCHEMA
    role: KvRole
    attention_kind: KvAttentionKind
    batch: int
    layers: int
    kv_heads: int
    query_heads: int
    tokens: int
    head_dim: int
    dtype: KvDType
    rope_state: KvRopeState

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        shape = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            role=fields.choice("role", KvRole),
            attention_kind=fields.choice("attention_kind", KvAttentionKind),
            batch=fields.integer("batch"),
            layers=fields.integer("layers"),
            kv_heads=fields.integer("kv_heads"),
            query_heads=fields.integer("query_heads"),
            tokens=fields.integer("tokens"),
            head_dim=fields.integer("head_dim"),
            dtype=fields.choice("dtype", KvDType),
            rope_state=fields.choice("rope_state", KvRopeState),
        )
        fields.done()
        shape._check_rules(fields)
        return shape

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        """The digest of a valid shape; an invalid one has none."""
        self.validate()
        return digest.json_digest(SCHEMA, self.compact())

    def validate(self, pointer: str = "") -> None:
        """ProfileError where a field or a rule between fields does not hold."""
        self.from_json(self.to_json(), pointer)

    def validate_block_dim(self, block_dim: int, pointer: str = "") -> None:
        """ProfileError unless blocks of `block_dim` channels divide a vector."""
        self.validate()
        if block_dim < 1 or self.head_dim % block_dim:
            raise ProfileError(
                "E402",
                f"head_dim {self.head_dim} is not divisible by block_dim {block_dim}",
                pointer,
            )

    @property
    def vector_count(self) -> int:
        """Vectors of head_dim channels: batch · layers · kv_heads · tokens."""
        return _checked_product(*(getattr(self, name) for name in AXES[:-1]))

    @property
    def element_count(self) -> int:
        return _checked_product(*(getattr(self, name) for name in AXES))

    def layout(self) -> KvCacheLayoutV1:
        """The one layout of this shape: contiguous, channels innermost."""
        self.validate()
        head_stride = self.tokens * self.head_dim
        layer_stride = self.kv_heads * head_stride
        return KvCacheLayoutV1(
            batch_stride=self.layers * layer_stride,
            layer_stride=layer_stride,
            head_stride=head_stride,
            token_stride=self.head_dim,
        )

    def validate_layout(self, layout: KvCacheLayoutV1, pointer: str = "") -> None:
        """ProfileError unless `layout` is the one of this shape."""
        layout.validate(pointer)
        expected = self.layout().to_json()
        for name, found in layout.to_json().items():
            if found != expected[name]:
                message = f"{name} {found}, the contiguous layout has {expected[name]}"
                raise ProfileError("E402", message, f"{pointer}/{name}")

    def _check_rules(self, fields: Fields) -> None:
        for name in COUNTS:
            if getattr(self, name) == 0:
                fields.refuse(name, f"{name} must be greater than 0")
        self._check_heads(fields)
        if self.role is KvRole.KEY and self.rope_state is KvRopeState.NOT_APPLICABLE:
            fields.refuse("rope_state", "key tensors must declare pre_rope or post_rope")
        if self.role is KvRole.VALUE and self.rope_state is not KvRopeState.NOT_APPLICABLE:
            fields.refuse(
                "rope_state", f"value tensors must be not_applicable, not {self.rope_state}"
            )
        _checked_product(*(getattr(self, name) for name in AXES), pointer=fields.pointer)

    def _check_heads(self, fields: Fields) -> None:
        query, kv = self.query_heads, self.kv_heads
        if self.attention_kind is KvAttentionKind.MHA and query != kv:
            fields.refuse(
                "query_heads", f"mha needs query_heads equal to kv_heads, {query} != {kv}"
            )
        if self.attention_kind is KvAttentionKind.MQA and kv != 1:
            fields.refuse("kv_heads", f"mqa needs one kv head, found {kv}")
        if query % kv:
            fields.refuse("query_heads", f"{query} query heads are not divisible by {kv} kv heads")


def _checked_product(*counts: int, pointer: str = "") -> int:
    product = math.prod(counts)
    if product > U64:
        raise ProfileError("E404", f"size {product} overflows, at most {U64} is allowed", pointer)
    return product

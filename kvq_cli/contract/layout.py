"""layout: KvCacheLayoutV1, where each element of a shape lies, in elements.

Spec: formats/contract.md, section "Layout".

    dim 1 | token head_dim | head tokens·token | layer kv_heads·head | batch layers·layer

Only this contiguous order exists in version 1; KvTensorShapeV1.layout() makes it.
"""

from __future__ import annotations

from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.contract.words import (
    KvLayoutOrder,
)
from kvq_cli.record import record

SCHEMA: Final = "fib_quant_kv_cache_layout_v1"
SHAPE_SCHEMA: Final = "fib_quant_kv_tensor_shape_v1"


@record(kw_only=True)
class KvCacheLayoutV1:
    """The fields, in digest order; strides count elements."""

    schema_version: str = SCHEMA
    shape_schema_version: str = SHAPE_SCHEMA
    order: KvLayoutOrder = KvLayoutOrder.BATCH_LAYER_HEAD_TOKEN_DIM
    batch_stride: int
    layer_stride: int
    head_stride: int
    token_stride: int
    dim_stride: int = 1

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        layout = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            shape_schema_version=fields.exactly("shape_schema_version", SHAPE_SCHEMA),
            order=fields.choice("order", KvLayoutOrder),
            batch_stride=fields.integer("batch_stride", 1, U64),
            layer_stride=fields.integer("layer_stride", 1, U64),
            head_stride=fields.integer("head_stride", 1, U64),
            token_stride=fields.integer("token_stride", 1, U64),
            dim_stride=fields.integer("dim_stride", 1, U64),
        )
        fields.done()
        layout._check_nesting(fields)
        return layout

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        """The digest of a valid layout; an invalid one has none."""
        self.validate()
        return digest.json_digest(SCHEMA, self.compact())

    def validate(self, pointer: str = "") -> None:
        """ProfileError unless some shape has this layout."""
        self.from_json(self.to_json(), pointer)

    def _check_nesting(self, fields: Fields) -> None:
        """A contiguous layout: each stride is a whole number of the one inside it."""
        names = ("dim_stride", "token_stride", "head_stride", "layer_stride", "batch_stride")
        inner = 1
        for name in names:
            stride = getattr(self, name)
            if stride % inner or (name == "dim_stride" and stride != 1):
                fields.refuse(name, f"{stride} is not contiguous over {inner}", "E403")
            inner = stride

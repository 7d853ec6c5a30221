"""kv_profiles: a shape and KV profiles for it, which tests change where it matters to them."""

from __future__ import annotations

from typing import Any, Final

from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import (
    KvAttentionKind,
    KvAxisPolicyV1,
    KvDType,
    KvRole,
    KvRopeState,
)

ZERO: Final = "blake3:" + 64 * "0"  # a digest that nothing has
KEYS: Final = KvTensorShapeV1(
    role=KvRole.KEY,
    attention_kind=KvAttentionKind.GQA,
    batch=1,
    layers=2,
    kv_heads=2,
    query_heads=4,
    tokens=5,
    head_dim=64,
    dtype=KvDType.F16,
    rope_state=KvRopeState.POST_ROPE,
)
OF_VALUES: Final[dict[str, Any]] = {
    "role": KvRole.VALUE,
    "rope_state": KvRopeState.NOT_APPLICABLE,
}


def kv_profile(
    shape: KvTensorShapeV1, *, page_tokens: int, encoded_bytes: int = 1040, **parts: Any
) -> KvCompressionProfileV1:
    """A profile for the shape: a code for each token, and tables that nothing has."""
    defaults = {
        "profile_id": "test",
        "fib_profile": FibQuantProfileV1.paper_default(shape.head_dim, 4, 256, 42),
        "codebook_digest": ZERO,
        "rotation_digest": ZERO,
        "axis_policy": KvAxisPolicyV1.PER_TOKEN,
        "page_geometry": KvPageGeometryV1.new(page_tokens, shape.head_dim, encoded_bytes),
    }
    return KvCompressionProfileV1.from_parts(shape=shape, **{**defaults, **parts})

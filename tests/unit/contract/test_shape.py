"""Shapes, layouts and page geometries: counts, rules, digests."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.contract.fields import U32
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.layout import KvCacheLayoutV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.words import KvAttentionKind, KvDType, KvRole, KvRopeState
from kvq_cli.errors import ProfileError
from support.kv_profiles import KEYS

SHAPE = dataclasses.replace(KEYS, kv_heads=3, query_heads=6, head_dim=8, dtype=KvDType.BF16)


@st.composite
def shapes(draw: st.DrawFn) -> KvTensorShapeV1:
    """Any valid shape that is not too large."""
    count = st.integers(1, 2**12)
    kind = draw(st.sampled_from(KvAttentionKind))
    heads = 1 if kind is KvAttentionKind.MQA else draw(count)
    group = 1 if kind is KvAttentionKind.MHA else draw(count)
    role = draw(st.sampled_from(KvRole))
    states = [KvRopeState.PRE_ROPE, KvRopeState.POST_ROPE]
    return KvTensorShapeV1(
        role=role,
        attention_kind=kind,
        batch=draw(count),
        layers=draw(count),
        kv_heads=heads,
        query_heads=heads * group,
        tokens=draw(count),
        head_dim=draw(count),
        dtype=draw(st.sampled_from(KvDType)),
        rope_state=(
            draw(st.sampled_from(states)) if role is KvRole.KEY else KvRopeState.NOT_APPLICABLE
        ),
    )


@settings(deadline=None, max_examples=100)
@given(shapes())
def test_shapes_survive_json(shape: KvTensorShapeV1) -> None:
    """A shape and its layout come back from their JSON as they were."""
    assert KvTensorShapeV1.from_json(shape.to_json()) == shape
    layout = shape.layout()
    assert KvCacheLayoutV1.from_json(layout.to_json()) == layout
    assert layout.batch_stride * shape.batch == shape.element_count
    shape.validate_layout(layout)


@pytest.mark.parametrize("name", ["batch", "layers", "tokens", "head_dim"])
def test_digest_binds_every_count(name: str) -> None:
    """Another count is another digest."""
    other = dataclasses.replace(SHAPE, **{name: getattr(SHAPE, name) * 2})
    assert other.digest() != SHAPE.digest()


def test_counts() -> None:
    """Vectors are rows of head_dim elements."""
    assert (SHAPE.vector_count, SHAPE.element_count) == (30, 240)


def test_overflow_is_a_limit() -> None:
    """More than 2^64 - 1 elements are refused, whether validated, digested or counted."""
    huge = dataclasses.replace(SHAPE, tokens=U32, head_dim=U32, batch=U32)
    for use in (huge.validate, huge.digest, huge.layout, lambda: huge.element_count):
        with pytest.raises(ProfileError) as refusal:
            use()
        assert refusal.value.error_id == "E404"


def test_largest_shape_is_valid() -> None:
    """2^64 - 2^33 + 1 elements are within the limit."""
    large = dataclasses.replace(
        SHAPE, layers=1, kv_heads=1, query_heads=1, tokens=U32, head_dim=U32
    )
    assert large.element_count == U32 * U32
    assert large.layout().batch_stride == U32 * U32


@pytest.mark.parametrize(
    "wrong",
    [{"tokens": -1}, {"tokens": True}, {"tokens": 2.0}, {"batch": U32 + 1}, {"role": "keys"}],
)
def test_made_shapes_are_validated_too(wrong: dict[str, Any]) -> None:
    """A shape that was not read from JSON has no digest unless it could have been."""
    with pytest.raises(ProfileError) as refusal:
        dataclasses.replace(SHAPE, **wrong).digest()
    assert refusal.value.pointer == f"/{next(iter(wrong))}"


@pytest.mark.parametrize(("block_dim", "fits"), [(1, True), (8, True), (3, False), (0, False)])
def test_blocks_divide_vectors(block_dim: int, fits: bool) -> None:
    """A block dimension divides head_dim."""
    if fits:
        SHAPE.validate_block_dim(block_dim)
        return
    with pytest.raises(ProfileError) as refusal:
        SHAPE.validate_block_dim(block_dim, "/block_dim")
    assert (refusal.value.error_id, refusal.value.pointer) == ("E402", "/block_dim")


@pytest.mark.parametrize(("tokens_per_page", "pages"), [(1, 5), (2, 3), (4, 2), (5, 1)])
def test_page_count(tokens_per_page: int, pages: int) -> None:
    """The last page may be short."""
    geometry = KvPageGeometryV1.new(tokens_per_page, 8, 64)
    assert geometry.page_count(SHAPE) == pages
    assert KvPageGeometryV1.from_json(geometry.to_json()) == geometry


def test_geometry_saturates_like_the_reference() -> None:
    """raw_vector_bytes stays a u32 where four times head_dim is none."""
    assert KvPageGeometryV1.new(1, 2**31, 1).raw_vector_bytes == U32

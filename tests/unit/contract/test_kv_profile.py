"""KV profiles: bound to one shape, and telling which field of another one differs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.contract.difference import differing_fields
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1, KvQualityBudgetV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAttentionKind, KvDType, KvFallbackModeV1, KvRopeState
from kvq_cli.errors import ProfileError
from support.kv_profiles import KEYS, OF_VALUES, ZERO, kv_profile

SHAPE = dataclasses.replace(KEYS, layers=22, kv_heads=4, query_heads=32, tokens=4096)
PROFILE = kv_profile(SHAPE, page_tokens=256)
bounds = st.none() | st.floats(0, allow_nan=False, allow_infinity=False)


def refusal_for(shape: KvTensorShapeV1, profile: KvCompressionProfileV1 = PROFILE) -> ProfileError:
    with pytest.raises(ProfileError) as refusal:
        profile.validate_for_shape(shape, "/x")
    assert refusal.value.error_id == "E402"
    return refusal.value


@settings(deadline=None, max_examples=100)
@given(
    st.builds(
        KvProtectedPolicyV1,
        first_tokens_raw=st.integers(0, 4096),
        last_tokens_raw=st.integers(0, 4096),
        raw_layers=st.lists(st.integers(0, 21)).map(tuple),
        raw_heads=st.lists(st.integers(0, 3)).map(tuple),
    ),
    st.builds(
        KvQualityBudgetV1,
        max_logit_mse=bounds,
        max_attention_tv=bounds,
        max_topk_disagreement=bounds,
        max_value_aggregation_mse=bounds,
        fallback_on_violation=st.sampled_from(KvFallbackModeV1),
    ),
    st.text(),
)
def test_profiles_survive_json(
    protected: KvProtectedPolicyV1, budget: KvQualityBudgetV1, name: str
) -> None:
    """A profile comes back from its JSON as it was and holds for its shape."""
    profile = dataclasses.replace(
        PROFILE,
        profile_id=name,
        protected_policy=protected,
        quality_budget=budget,
        fallback_policy=KvFallbackPolicyV1(raw_fallback_available=False),
    )
    profile.validate_for_shape(SHAPE)
    again = KvCompressionProfileV1.from_json(profile.to_json())
    assert again == profile
    assert again.digest() == profile.digest()


def test_budgets_may_be_left_out() -> None:
    """A missing bound is no bound, and is digested as null."""
    value = PROFILE.to_json()
    del value["quality_budget"]["max_attention_tv"]
    assert KvCompressionProfileV1.from_json(value).digest() == PROFILE.digest()


def test_a_budget_keeps_the_sign_of_zero() -> None:
    """A bound of -0.0 is not negative, and has a digest of its own."""
    budgets = [KvQualityBudgetV1(max_attention_tv=bound) for bound in (0.0, -0.0)]
    assert all(budget.has_any_metric for budget in budgets)
    profiles = [dataclasses.replace(PROFILE, quality_budget=budget) for budget in budgets]
    assert profiles[0].digest() != profiles[1].digest()


@pytest.mark.parametrize(
    ("layer", "head", "token", "raw"),
    [
        (0, 0, 3, True),
        (0, 0, 4, False),
        (0, 0, 4093, False),
        (0, 0, 4094, True),
        (21, 0, 50, True),
        (0, 3, 50, True),
        (20, 2, 50, False),
    ],
)
def test_protection(layer: int, head: int, token: int, raw: bool) -> None:
    """First and last tokens, listed layers and listed heads are protected, and no others."""
    policy = KvProtectedPolicyV1(
        first_tokens_raw=4, last_tokens_raw=2, raw_layers=(21,), raw_heads=(3,)
    )
    assert policy.is_protected(SHAPE, layer, head, token) is raw
    assert not KvProtectedPolicyV1().is_protected(SHAPE, layer, head, token)


@pytest.mark.parametrize(
    "changes",
    [
        {"tokens": 512},
        {"batch": 2},
        {"layers": 24},
        {"kv_heads": 8},
        {"query_heads": 16},
        {"dtype": KvDType.BF16},
        {"rope_state": KvRopeState.PRE_ROPE},
        {"head_dim": 128},
        OF_VALUES,
        {**OF_VALUES, "tokens": 512},
        {"head_dim": 128, "tokens": 512},
    ],
    ids="+".join,
)
def test_the_differing_field_is_named(changes: dict[str, Any]) -> None:
    """The refusal has both digests and every differing field, with both its values."""
    shape = dataclasses.replace(SHAPE, **changes)
    error = refusal_for(shape)
    assert error.pointer == "/x/shape_digest"
    assert SHAPE.digest() in str(error)
    assert shape.digest() in str(error)
    for name, value in changes.items():
        assert f"{name}: the profile is for {getattr(SHAPE, name)}" in str(error)
        assert f"the capture has {value}" in str(error)


def test_heads_of_multi_head_attention_differ_together() -> None:
    """Where query heads must equal kv heads, both are found and named."""
    mha = dataclasses.replace(
        SHAPE, attention_kind=KvAttentionKind.MHA, kv_heads=12, query_heads=12
    )
    profile = dataclasses.replace(PROFILE, shape_digest=mha.digest())
    message = str(refusal_for(dataclasses.replace(mha, kv_heads=16, query_heads=16), profile))
    assert "kv_heads: the profile is for 12" in message
    assert "query_heads: the profile is for 12" in message


def test_a_vain_search_is_short() -> None:
    """Where no one field explains the digest, that is said within the time of a click."""
    start = time.perf_counter()
    error = refusal_for(dataclasses.replace(SHAPE, layers=2, dtype=KvDType.F32))
    assert time.perf_counter() - start < 1.5
    assert "more than one field" in str(error)


def test_differing_fields() -> None:
    """Two shapes differ in the fields that differ, in declaration order."""
    other = dataclasses.replace(SHAPE, dtype=KvDType.F32, layers=1)
    assert differing_fields(SHAPE, other) == ("layers", "dtype")
    assert differing_fields(SHAPE, SHAPE) == ()


def test_both_vector_profile_digests_are_named() -> None:
    """A wrong fib_profile_digest is refused with the right one."""
    profile = dataclasses.replace(PROFILE, fib_profile_digest=ZERO)
    error = refusal_for(SHAPE, profile)
    assert error.pointer == "/x/fib_profile_digest"
    assert ZERO in str(error)
    assert PROFILE.fib_profile.digest() in str(error)


def test_an_invalid_shape_is_refused_for_itself() -> None:
    """A capture's shape is validated before a profile is held against it."""
    with pytest.raises(ProfileError) as refusal:
        PROFILE.validate_for_shape(dataclasses.replace(SHAPE, kv_heads=5))
    assert (refusal.value.error_id, refusal.value.pointer) == ("E401", "/query_heads")


def test_from_parts_binds_the_shape() -> None:
    """A vector profile of another head_dim cannot be bound."""
    with pytest.raises(ProfileError) as refusal:
        kv_profile(
            SHAPE,
            page_tokens=256,
            fib_profile=FibQuantProfileV1.paper_default(128, 4, 256, 42),
            page_geometry=KvPageGeometryV1.new(256, 128, 1040),
        )
    assert refusal.value.pointer == "/fib_profile/ambient_dim"

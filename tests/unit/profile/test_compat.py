"""from_kv_profile: a fib_quant KV profile as the Profile that it stands for."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli import profile
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.contract.compat import kv_tensor
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1, KvQualityBudgetV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvFallbackModeV1
from kvq_cli.errors import ProfileError
from kvq_cli.planes import table_spec
from kvq_cli.profile import Budget, Fallback, Protected, Range, Rule, runs
from kvq_cli.profile.compat import from_kv_profile
from kvq_cli.words import Reason, Role
from support.kv_profiles import KEYS, OF_VALUES, ZERO, kv_profile

RAW, LOSSLESS = (codec_from_json(name, {}, "") for name in ("raw", "lossless"))
SHAPE = replace(KEYS, layers=6, kv_heads=5, query_heads=10, tokens=40)
KV_PROFILE = kv_profile(SHAPE, page_tokens=16, profile_id="run 7", axis_policy=KvAxisPolicyV1.RAW)


def test_raw_becomes_a_rule_for_its_role():
    """The codec is raw with no reason; page size and defaults come over."""
    made = from_kv_profile(KV_PROFILE, SHAPE)
    assert made.rules == (Rule(RAW, Role.KEY), Rule(LOSSLESS))
    assert (made.name, made.page_tokens) == ("kv-profile", 16)
    assert (made.budget, made.calibration_digest) == (None, None)
    assert (made.protected, made.fallback) == (Protected(), Fallback.KEEP_RAW)
    (run,) = runs(made, Role.KEY, 0, layers=6, heads=5, tokens=40)
    assert (run.codec, run.reason) == (RAW, Reason.NONE)


def test_declarations_come_over():
    """Protection, fallback, budget, calibration and a usable id are the KV profile's."""
    source = replace(
        KV_PROFILE,
        profile_id="run-7",
        protected_policy=KvProtectedPolicyV1(
            first_tokens_raw=4, last_tokens_raw=1, raw_layers=(5, 0, 1, 1), raw_heads=(3,)
        ),
        fallback_policy=KvFallbackPolicyV1(mode=KvFallbackModeV1.FAIL_CLOSED),
        quality_budget=KvQualityBudgetV1(
            max_attention_tv=0.5,
            max_logit_mse=-0.0,
            fallback_on_violation=KvFallbackModeV1.FAIL_CLOSED,
        ),
        calibration_digest=ZERO,
    )
    made = from_kv_profile(source, SHAPE)
    assert made.name == "run-7"
    assert made.protected == Protected(4, 1, (Range(0, 2), Range(5, 6)), (Range(3, 4),))
    assert made.fallback is Fallback.FAIL_CLOSED
    assert made.budget == Budget(
        max_logit_mse=0.0, max_attention_tv=0.5, on_violation=Fallback.FAIL_CLOSED
    )
    assert str(made.budget.max_logit_mse) == "0.0"
    assert made.calibration_digest == ZERO
    assert profile.parse_profile(made.to_json()) == made


VECTORS = FibQuantProfileV1.paper_default(64, 4, 16, 42)
MADE = Quantizer.build(VECTORS)
CODED = replace(
    KV_PROFILE,
    fib_profile=VECTORS,
    fib_profile_digest=MADE.profile_digest,
    rotation_digest=MADE.codebook.rotation_digest,
    codebook_digest=MADE.codebook_digest,
    axis_policy=KvAxisPolicyV1.PER_TOKEN,
)
VALUE_SHAPE = replace(SHAPE, **OF_VALUES)


@pytest.mark.parametrize(
    ("policy", "shape", "axis"),
    [
        (KvAxisPolicyV1.PER_TOKEN, SHAPE, "token"),
        (KvAxisPolicyV1.PER_CHANNEL, SHAPE, "channel"),
        (KvAxisPolicyV1.PER_CHANNEL, VALUE_SHAPE, "channel"),
        (KvAxisPolicyV1.ROLE_AWARE_KIVI_STYLE, SHAPE, "channel"),
        (KvAxisPolicyV1.ROLE_AWARE_KIVI_STYLE, VALUE_SHAPE, "token"),
    ],
)
def test_axis_policies_compress(policy, shape, axis):
    """The codec has the vector profile's tables, and its vectors lie along the policy's axis."""
    source = replace(CODED, axis_policy=policy, role_policy=shape.role, shape_digest=shape.digest())
    made = from_kv_profile(source, shape)
    codec = made.rules[0].codec
    assert (codec.name, codec.axis) == ("fib_quant", axis)
    assert (codec.dim, codec.block, codec.size) == (64, 4, 16)
    assert codec.profile == source.fib_profile_digest
    rotation, codebook = (made.tables[table.digest] for table in codec.tables())
    assert np.array_equal(rotation, MADE.rotation.matrix)
    assert np.array_equal(codebook, MADE.codebook.codewords)
    assert [table_spec(each) for each in (rotation, codebook)] == list(codec.tables())


@pytest.mark.parametrize("name", ["rotation_digest", "codebook_digest"])
def test_other_tables_are_refused(name):
    """A table that is not the profile's is told with both digests."""
    with pytest.raises(ProfileError) as refusal:
        from_kv_profile(replace(CODED, **{name: ZERO}), SHAPE)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E402", f"/{name}")
    assert ZERO in str(refusal.value)
    assert getattr(CODED, name) in str(refusal.value)


def test_a_wrong_rotation_is_told_before_training(monkeypatch):
    """Training may take minutes."""
    monkeypatch.setattr(kv_tensor, "made", None)
    with pytest.raises(ProfileError) as refusal:
        from_kv_profile(replace(CODED, rotation_digest=ZERO), SHAPE)
    assert refusal.value.pointer == "/rotation_digest"


def test_tables_have_a_limit():
    """What no container may hold is not trained."""
    vectors = FibQuantProfileV1.paper_default(64, 32, 2**20, 42)
    source = replace(CODED, fib_profile=vectors, fib_profile_digest=vectors.digest())
    with pytest.raises(ProfileError) as refusal:
        from_kv_profile(source, SHAPE)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E404", "/fib_profile")


def test_another_shape_is_refused():
    """A KV profile serves the shape it is bound to."""
    with pytest.raises(ProfileError) as refusal:
        from_kv_profile(KV_PROFILE, replace(SHAPE, tokens=41))
    assert refusal.value.error_id == "E402"


def test_pages_have_a_limit():
    """Pages larger than a profile allows are refused, not cut."""
    shape = replace(SHAPE, tokens=70_000)
    source = replace(
        KV_PROFILE,
        shape_digest=shape.digest(),
        page_geometry=KvPageGeometryV1.new(65_537, 64, 1040),
    )
    with pytest.raises(ProfileError) as refusal:
        from_kv_profile(source, shape)
    assert (refusal.value.error_id, refusal.value.pointer) == (
        "E404",
        "/page_geometry/tokens_per_page",
    )


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        KvProtectedPolicyV1,
        first_tokens_raw=st.integers(0, 40),
        last_tokens_raw=st.integers(0, 40),
        raw_layers=st.lists(st.integers(0, 5), max_size=4).map(tuple),
        raw_heads=st.lists(st.integers(0, 4), max_size=4).map(tuple),
    )
)
def test_protection_is_the_same_for_every_vector(policy):
    """What the KV profile protects is what the runs protect."""
    made = from_kv_profile(replace(KV_PROFILE, protected_policy=policy), SHAPE)
    for layer in range(6):
        for run in runs(made, Role.KEY, layer, layers=6, heads=5, tokens=40):
            for head in run.heads:
                for token in range(run.start, run.stop):
                    is_raw = run.reason is Reason.PROTECTED
                    assert is_raw == policy.is_protected(SHAPE, layer, head, token)


def test_a_file_of_the_other_kind_is_read(tmp_path):
    """load_profile gives back the KV profile that was written."""
    path = tmp_path / "kv.json"
    path.write_text(json.dumps(KV_PROFILE.to_json()))
    assert profile.load_profile(path) == KV_PROFILE

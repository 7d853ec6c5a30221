"""compat: a fib_quant KV profile as the Profile that it stands for.

Spec: formats/profile.md, section "KV profiles of fib-quant".

A KV profile serves one role of one shape. What the Profile says of the other role means
nothing: whoever compresses a capture asks each role's own profile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.policies import METRICS, KvQualityBudgetV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.words import KvAxisPolicyV1
from kvq_cli.digest import is_text
from kvq_cli.errors import ProfileError
from kvq_cli.profile.model import Budget, Fallback, Profile, Protected, Rule
from kvq_cli.profile.parse import MAX_PAGE_TOKENS, NAME
from kvq_cli.profile.ranges import Range
from kvq_cli.words import Role

UNNAMED: Final = "kv-profile"


def from_kv_profile(kv_profile: KvCompressionProfileV1, shape: KvTensorShapeV1) -> Profile:
    """The profile for the role of `kv_profile`; ProfileError where it is not for `shape`."""
    kv_profile.validate_for_shape(shape)
    role = Role[kv_profile.role_policy.name]
    profile_id, calibration = kv_profile.profile_id, kv_profile.calibration_digest
    return Profile(
        name=profile_id if NAME.fullmatch(profile_id) else UNNAMED,
        description=f"{kv_profile.schema_version} of shape {kv_profile.shape_digest}",
        page_tokens=_page_tokens(kv_profile),
        rules=(
            Rule(_codec(kv_profile), role),
            Rule(codec_from_json("lossless", {}, "")),
        ),
        protected=_protected(kv_profile),
        fallback=Fallback(kv_profile.fallback_policy.mode),
        budget=_budget(kv_profile.quality_budget),
        calibration_digest=calibration if is_text(calibration) else None,
    )


def _codec(kv_profile: KvCompressionProfileV1) -> Codec:
    axis = kv_profile.axis_policy
    if axis is not KvAxisPolicyV1.RAW:
        found = f'"{axis}" needs the codec fibquant, which this version does not have'
        raise ProfileError("E403", found, "/axis_policy")
    return codec_from_json("raw", {}, "/axis_policy")


def _page_tokens(kv_profile: KvCompressionProfileV1) -> int:
    tokens = kv_profile.page_geometry.tokens_per_page
    if tokens > MAX_PAGE_TOKENS:
        found = f"{tokens} tokens a page, at most {MAX_PAGE_TOKENS} are allowed"
        raise ProfileError("E404", found, "/page_geometry/tokens_per_page")
    return tokens


def _protected(kv_profile: KvCompressionProfileV1) -> Protected:
    policy = kv_profile.protected_policy
    return Protected(
        first_tokens=policy.first_tokens_raw,
        last_tokens=policy.last_tokens_raw,
        layers=_joined(policy.raw_layers),
        heads=_joined(policy.raw_heads),
    )


def _joined(numbers: Iterable[int]) -> tuple[Range, ...]:
    """The numbers as ranges, sorted, neighbours joined."""
    ranges: list[Range] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1].stop == number:
            ranges[-1] = Range(ranges[-1].start, number + 1)
        else:
            ranges.append(Range(number, number + 1))
    return tuple(ranges)


def _budget(budget: KvQualityBudgetV1) -> Budget | None:
    if not budget.has_any_metric:
        return None
    bounds = {metric: _bound(getattr(budget, metric)) for metric in METRICS}
    return Budget(**bounds, on_violation=Fallback(budget.fallback_on_violation))


def _bound(bound: float | None) -> float | None:
    return None if bound is None else bound + 0.0  # -0.0 becomes 0.0, as when it is parsed

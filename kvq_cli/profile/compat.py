"""compat: a fib_quant KV profile as the Profile that it stands for.

Spec: formats/profile.md, section "KV profiles of fib-quant".

A KV profile serves one role of one shape. What the Profile says of the other role means
nothing: whoever compresses a capture asks each role's own profile.

    raw                       codec raw; no table is made, and no digest of one compared
    per_token                 codec fib_quant, axis "token"
    per_channel               codec fib_quant, axis "channel"
    role_aware_kivi_style     keys per channel, values per token
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from kvq_cli.codecs import Codec
from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.contract.compat.kv_tensor import quantizer_of
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.policies import METRICS, KvQualityBudgetV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvRole
from kvq_cli.digest import is_text
from kvq_cli.errors import ProfileError
from kvq_cli.numerics.groups import Axis
from kvq_cli.numerics.scratch import Tables
from kvq_cli.planes import table_spec
from kvq_cli.profile.model import Budget, Fallback, Profile, Protected, Rule
from kvq_cli.profile.parse import MAX_PAGE_TOKENS, NAME
from kvq_cli.profile.ranges import Range
from kvq_cli.words import MAX_TABLE_BYTES, Role

UNNAMED: Final = "kv-profile"


def from_kv_profile(kv_profile: KvCompressionProfileV1, shape: KvTensorShapeV1) -> Profile:
    """The profile for the role of `kv_profile`; ProfileError where it is not for `shape`.

    It comes with the tables of the vector profile, which are trained anew: that may take long.
    """
    kv_profile.validate_for_shape(shape)
    role = Role[kv_profile.role_policy.name]
    page_tokens = _page_tokens(kv_profile)
    codec, tables = _codec(kv_profile)
    profile_id, calibration = kv_profile.profile_id, kv_profile.calibration_digest
    return Profile(
        name=profile_id if NAME.fullmatch(profile_id) else UNNAMED,
        description=f"{kv_profile.schema_version} of shape {kv_profile.shape_digest}",
        page_tokens=page_tokens,
        rules=(
            Rule(codec, role),
            Rule(codec_from_json("lossless", {}, "")),
        ),
        protected=_protected(kv_profile),
        fallback=Fallback(kv_profile.fallback_policy.mode),
        budget=budget_of(kv_profile.quality_budget),
        calibration_digest=calibration if is_text(calibration) else None,
        tables=tables,
    )


def fib_quant(quantizer: Quantizer, axis: Axis) -> tuple[FibQuant, Tables]:
    """The codec of tables that are there, and the tables."""
    arrays = quantizer.rotation.matrix, quantizer.codebook.codewords
    rotation, codebook = (table_spec(array).digest for array in arrays)
    profile = quantizer.profile
    codec = FibQuant(
        dim=profile.ambient_dim,
        block=profile.block_dim,
        size=profile.codebook_size,
        rotation=rotation,
        codebook=codebook,
        profile=quantizer.profile_digest,
        axis=axis,
    )
    return codec, dict(zip((rotation, codebook), arrays, strict=True))


def _codec(kv_profile: KvCompressionProfileV1) -> tuple[Codec, Tables]:
    if not kv_profile.trains:
        return codec_from_json("raw", {}, "/axis_policy"), {}
    vectors = kv_profile.fib_profile
    size = 8 * vectors.ambient_dim**2 + 4 * vectors.codebook_size * vectors.block_dim
    if size > MAX_TABLE_BYTES:
        found = f"rotation and codebook take {size} bytes, at most {MAX_TABLE_BYTES} are allowed"
        raise ProfileError("E404", found, "/fib_profile")
    return fib_quant(quantizer_of(kv_profile, None), _axis(kv_profile))


def _axis(kv_profile: KvCompressionProfileV1) -> Axis:
    policy = kv_profile.axis_policy
    if policy is KvAxisPolicyV1.ROLE_AWARE_KIVI_STYLE:
        return "channel" if kv_profile.role_policy is KvRole.KEY else "token"
    return "channel" if policy is KvAxisPolicyV1.PER_CHANNEL else "token"


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


def budget_of(budget: KvQualityBudgetV1) -> Budget | None:
    """The same bounds; None without one."""
    if not budget.has_any_metric:
        return None
    bounds: dict[str, Any] = {metric: _bound(getattr(budget, metric)) for metric in METRICS}
    return Budget(**bounds, on_violation=Fallback(budget.fallback_on_violation))


def _bound(bound: float | None) -> float | None:
    return None if bound is None else bound + 0.0  # -0.0 becomes 0.0, as when it is parsed

"""words: the enumerations of the contract, each by its exact text.

Spec: formats/contract.md, section "Words".

A word that is listed here can be read; whether it is supported, the objects' rules say.
"""

from __future__ import annotations

from enum import StrEnum


class KvRole(StrEnum):
    """The role, as the contract's JSON writes it: kvq_cli.page.Role by its word."""

    KEY = "key"
    VALUE = "value"


class KvAttentionKind(StrEnum):
    """How query heads share kv heads."""

    MHA = "mha"
    MQA = "mqa"
    GQA = "gqa"


class KvDType(StrEnum):
    """The element type of the source tensor."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"


class KvRopeState(StrEnum):
    """Whether keys were captured before or after the rotary embedding."""

    PRE_ROPE = "pre_rope"
    POST_ROPE = "post_rope"
    NOT_APPLICABLE = "not_applicable"


class KvLayoutOrder(StrEnum):
    """The order of axes, outermost first."""

    BATCH_LAYER_HEAD_TOKEN_DIM = "batch_layer_head_token_dim"  # noqa: S105 (no password)


class NormFormat(StrEnum):
    """How a vector's norm is stored; only the first is supported."""

    FP16_PAPER = "fp16_paper"
    F32_REFERENCE = "f32_reference"


class SourceMode(StrEnum):
    """Where training vectors come from; only the first is supported."""

    CANONICAL_SPHERICAL_BETA = "canonical_spherical_beta"
    REFERENCE_GAUSSIAN_PROJECTION = "reference_gaussian_projection"


class RadiusMethod(StrEnum):
    """How first radii are chosen; the last is never accepted."""

    BETA_QUANTILE = "beta_quantile"
    K2_CLOSED_FORM = "k2_closed_form"
    LARGE_D_SINGLE_SHELL_EXPLICIT = "large_d_single_shell_explicit"


class DirectionMethod(StrEnum):
    """How first directions are chosen."""

    FIBONACCI_SPIRAL = "fibonacci_spiral"
    FIBONACCI_SPHERE = "fibonacci_sphere"
    ROBERTS_KRONECKER = "roberts_kronecker"


class EmptyCellPolicy(StrEnum):
    """What training does with a codeword that nothing is nearest to."""

    SPLIT_HIGHEST_DISTORTION = "split_highest_distortion"
    FAIL_CLOSED = "fail_closed"


class LloydMode(StrEnum):
    """Whether the first codebook is refined; the field of the 20-field set."""

    REFINE = "refine"
    SKIP = "skip"


class KvAxisPolicyV1(StrEnum):
    """Which numbers form one vector."""

    RAW = "raw"
    PER_TOKEN = "per_token"  # noqa: S105 (no password)
    PER_CHANNEL = "per_channel"
    ROLE_AWARE_KIVI_STYLE = "role_aware_kivi_style"  # keys per channel, values per token


class KvFallbackModeV1(StrEnum):
    """What happens to what cannot be compressed as asked."""

    KEEP_RAW = "keep_raw"
    FAIL_CLOSED = "fail_closed"

"""bind: a KV profile of fib_quant made for one role of a capture, and the digests of profiles.

Spec: formats/profile.md, section "KV profiles of fib-quant"; formats/contract.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kvq_cli.contract.compat.kv_tensor import made
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvFallbackModeV1
from kvq_cli.errors import ProfileError, UsageError
from kvq_cli.profile import load_object
from kvq_cli.record import record
from kvq_cli.steps.describe import InspectReport, described
from kvq_cli.steps.facts import shapes_of
from kvq_cli.steps.inputs import capture_input
from kvq_cli.words import Role


@record
class Terms:
    """What a KV profile says besides its shape."""

    block: int = 4
    size: int = 256
    seed: int = 42
    axis: str = "per_token"
    page_tokens: int = 256
    first_raw: int = 0
    last_raw: int = 0
    fallback: str = "keep_raw"
    name: str | None = None


def bind_profile(
    source: str | Path,
    role: Role,
    terms: Terms,
    *,
    meta: Mapping[str, str] | None = None,
    shape: str | Path | None = None,
    layout: str | None = None,
) -> KvCompressionProfileV1:
    """The profile; its rotation and codebook are made, which may take long."""
    with capture_input(Path(source), layout, meta, shape=shape) as capture:
        found = shapes_of(capture).get(role)
    if found is None:
        raise UsageError(
            "E101",
            f"the capture does not tell one {role.word} shape in full; give attention_kind, "
            "query_heads and rope_state with --meta or --shape",
        )
    try:
        return _profile(found, terms)
    except ProfileError as error:
        raise UsageError("E101", f"no profile can be bound so: {error}") from error


def _profile(shape: KvTensorShapeV1, terms: Terms) -> KvCompressionProfileV1:
    vectors = FibQuantProfileV1.paper_default(shape.head_dim, terms.block, terms.size, terms.seed)
    shape.validate_block_dim(terms.block, "/fib_profile/block_dim")
    quantizer = made(vectors)
    profile = KvCompressionProfileV1.from_parts(
        terms.name or f"{shape.role}-{terms.axis}-{terms.block}x{terms.size}".replace("_", "-"),
        shape,
        vectors,
        codebook_digest=quantizer.codebook_digest,
        rotation_digest=quantizer.codebook.rotation_digest,
        axis_policy=KvAxisPolicyV1(terms.axis),
        # Blocks are reserved as large as a raw vector, which any of them may be.
        page_geometry=KvPageGeometryV1.new(
            min(terms.page_tokens, shape.tokens), shape.head_dim, 4 * shape.head_dim
        ),
    )
    bound = replace(
        profile,
        protected_policy=KvProtectedPolicyV1(
            first_tokens_raw=terms.first_raw, last_tokens_raw=terms.last_raw
        ),
        fallback_policy=KvFallbackPolicyV1(mode=KvFallbackModeV1(terms.fallback)),
    )
    bound.validate_for_shape(shape)
    return bound


def profile_digests(source: str | Path) -> InspectReport:
    """What `describe_profile` tells, and `digests`: of all that the object names or gives.

    A KV profile states them; the tables of a vector profile are made, which may take long.
    """
    found = load_object(source)
    report = described(source, found)
    digests = {}
    if isinstance(found, KvCompressionProfileV1):
        digests = {
            "shape": found.shape_digest,
            "vector_profile": found.fib_profile_digest,
            "rotation": found.rotation_digest,
            "codebook": found.codebook_digest,
        }
    elif isinstance(found, FibQuantProfileV1):
        quantizer = made(found)
        rotation = quantizer.codebook.rotation_digest
        digests = {"rotation": rotation, "codebook": quantizer.codebook_digest}
    return InspectReport(report.path, report.kind, {**report.found, "digests": digests})

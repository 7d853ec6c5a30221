"""kv_encode: a tensor as pages under a KV profile.

Spec: formats/fibquant-compat.md, section "Tensors".

    protected                              raw, protected_region
    axis raw                               raw, raw_axis_policy
    axis per_token                         code, fib_quant_per_token; or raw, encode_fallback:…
    axis per_channel, role_aware_…         raw, unsupported_axis_raw_fallback

Where the profile fails closed, the last two raise instead of keeping a vector raw.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.coding import Refusal
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.kv_pages import (
    KvEncodedBlockV1,
    KvEncodedPageV1,
    Vector,
    raw_blocks,
)
from kvq_cli.contract.compat.kv_tensor import (
    TENSOR_TAG,
    Place,
    axes,
    float32_digest,
    places,
    quantizer_of,
    tokens,
)
from kvq_cli.contract.compat.vector_code import REASONS, Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvFallbackModeV1
from kvq_cli.errors import CodecError, ProfileError


def encode_tensor(
    shape: KvTensorShapeV1,
    profile: KvCompressionProfileV1,
    values: NDArray[np.float32],
    quantizer: Quantizer | None = None,
) -> tuple[KvEncodedPageV1, ...]:
    """The pages of a tensor; ProfileError or CodecError where the profile or a vector forbids."""
    profile.validate_for_shape(shape)
    if values.size != shape.element_count:
        found = f"{values.size} values, the shape has {shape.element_count}"
        raise CodecError("E501", found)
    source = float32_digest(TENSOR_TAG, values)
    encoder = _Encoder(shape, profile, values, quantizer_of(profile, quantizer))
    return tuple(
        encoder.page(number, source) for number in range(profile.page_geometry.page_count(shape))
    )


class _Encoder:
    """One tensor and what its vectors become."""

    def __init__(
        self,
        shape: KvTensorShapeV1,
        profile: KvCompressionProfileV1,
        values: NDArray[np.float32],
        quantizer: Quantizer,
    ) -> None:
        self._shape = shape
        self._profile = profile
        self._values = values.reshape(*axes(shape), shape.head_dim)
        self._keeps_raw = profile.fallback_policy.mode is KvFallbackModeV1.KEEP_RAW
        self._profile_digest = profile.digest()
        self._shape_digest = shape.digest()
        if profile.axis_policy is KvAxisPolicyV1.PER_TOKEN:
            codes = quantizer.encode(self._values.reshape(-1, shape.head_dim))
            self._refusals = codes.refusals.reshape(axes(shape))
            self._codes = quantizer.artifacts(codes)

    def page(self, number: int, source: str) -> KvEncodedPageV1:
        start, stop = tokens(self._shape, self._profile, number)
        blocks = tuple(
            self._block(number, place)
            for number, place in enumerate(places(self._shape, start, stop))
        )
        return KvEncodedPageV1(
            page_id=number,
            token_start=start,
            token_count=stop - start,
            source_tensor_digest=source,
            profile_digest=self._profile_digest,
            shape_digest=self._shape_digest,
            page_geometry=self._profile.page_geometry,
            encoded_blocks=blocks,
            raw_fallback_blocks=raw_blocks(blocks),
        ).signed()

    def _block(self, number: int, place: Place) -> KvEncodedBlockV1:
        reason, encoding = self._encoding(place)
        batch, layer, head, token = place
        return KvEncodedBlockV1(
            block_id=number,
            batch=batch,
            layer=layer,
            kv_head=head,
            token=token,
            fixed_size_bytes=self._profile.page_geometry.encoded_block_bytes,
            raw_fallback=not isinstance(encoding, FibCodeV1),
            reason=reason,
            encoding=encoding,
        )

    def _encoding(self, place: Place) -> tuple[str, FibCodeV1 | Vector]:
        raw: Vector = tuple(self._values[place].tolist())
        if self._profile.protected_policy.is_protected(self._shape, *place[1:]):
            return "protected_region", raw
        match self._profile.axis_policy:
            case KvAxisPolicyV1.RAW:
                return "raw_axis_policy", raw
            case KvAxisPolicyV1.PER_TOKEN:
                return self._coded(place, raw)
            case axis if self._keeps_raw:
                return "unsupported_axis_raw_fallback", raw
            case axis:
                raise ProfileError("E403", f"axis policy {axis} is not supported", "/axis_policy")

    def _coded(self, place: Place, raw: Vector) -> tuple[str, FibCodeV1 | Vector]:
        refusal = Refusal(int(self._refusals[place]))
        if refusal is Refusal.NONE:
            number = np.ravel_multi_index(place, axes(self._shape))
            return "fib_quant_per_token", self._codes[number]
        if not self._keeps_raw:
            raise CodecError("E501", f"vector {place}: {REASONS[refusal]}")
        return f"encode_fallback:{REASONS[refusal]}", raw

"""kv_tensor: where the vectors of a tensor lie in pages, and the digest of its values.

Spec: formats/fibquant-compat.md, section "Tensors".

    digest = BLAKE3(tag ‖ 00 ‖ number of values as u64 ‖ values as float32), little-endian
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli import digest
from kvq_cli.contract.compat.codebook import codebook
from kvq_cli.contract.compat.rotation import StoredRotation, rotation
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import CodecError, ProfileError

TENSOR_TAG: Final = "fib_quant_kv_tensor_f32_v1"
VECTOR_TAG: Final = "fib_quant_source_vector_v1"

Place: TypeAlias = tuple[int, int, int, int]  # batch, layer, kv head, token


def float32_digest(tag: str, values: NDArray[np.float32]) -> str:
    """The digest of float32 values under a tag; CodecError where one is not finite."""
    if not np.isfinite(values).all():
        raise CodecError("E501", "the tensor holds a value that is not finite")
    count = values.size.to_bytes(8, "little")
    return digest.text(digest.tagged(tag, [count, values.astype("<f4").tobytes()]))


def quantizer_of(profile: KvCompressionProfileV1, quantizer: Quantizer | None) -> Quantizer:
    """The quantizer of a profile; ProfileError where the profile names other tables."""
    if quantizer is None:
        # Training may take long, which a wrong rotation is told before.
        turn = turn_of(profile.fib_profile)
        _check(profile, "rotation_digest", turn.digest())
        quantizer = made(profile.fib_profile)
    _check(profile, "fib_profile_digest", quantizer.profile_digest)
    _check(profile, "rotation_digest", quantizer.codebook.rotation_digest)
    _check(profile, "codebook_digest", quantizer.codebook_digest)
    return quantizer


@lru_cache(maxsize=2)
def turn_of(profile: FibQuantProfileV1) -> StoredRotation:
    """The rotation of a profile; one that is asked for again is not made again."""
    profile.validate()
    return rotation(profile.ambient_dim, profile.rotation_seed)


@lru_cache(maxsize=2)
def made(profile: FibQuantProfileV1) -> Quantizer:
    """The quantizer of a profile, likewise: a call may compress many captures."""
    turn = turn_of(profile)
    return Quantizer.of(turn, codebook(profile, turn.digest()))


def _check(profile: KvCompressionProfileV1, name: str, found: str) -> None:
    named = getattr(profile, name)
    if named != found:
        raise ProfileError("E402", f"{named}, but fib_profile gives {found}", f"/{name}")


def axes(shape: KvTensorShapeV1) -> Place:
    return (shape.batch, shape.layers, shape.kv_heads, shape.tokens)


def tokens(shape: KvTensorShapeV1, profile: KvCompressionProfileV1, number: int) -> tuple[int, int]:
    start = number * profile.page_geometry.tokens_per_page
    return start, min(start + profile.page_geometry.tokens_per_page, shape.tokens)


def places(shape: KvTensorShapeV1, start: int, stop: int) -> Iterator[Place]:
    return itertools.product(
        range(shape.batch), range(shape.layers), range(shape.kv_heads), range(start, stop)
    )

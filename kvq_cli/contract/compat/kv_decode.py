"""kv_decode: the values of a tensor's pages.

Spec: formats/fibquant-compat.md, section "Tensors".

Pages are taken only if they are all pages of the tensor, each with the vectors of its tokens in
order. The reference's first versions take less, and decode what is missing as zeros.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.kv_pages import KvEncodedBlockV1, KvEncodedPageV1, raw_blocks
from kvq_cli.contract.compat.kv_tensor import axes, places, quantizer_of, tokens
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.errors import CodecError


def decode_tensor(
    shape: KvTensorShapeV1,
    profile: KvCompressionProfileV1,
    pages: Sequence[KvEncodedPageV1],
    quantizer: Quantizer | None = None,
) -> NDArray[np.float32]:
    """The (B, L, H, T, D) values of all pages of a tensor; CodecError unless they are its pages."""
    profile.validate_for_shape(shape)
    quantizer = quantizer_of(profile, quantizer)
    values = np.empty((*axes(shape), shape.head_dim), np.float32)
    if len(pages) != (expected := profile.page_geometry.page_count(shape)):
        found = f"{len(pages)} pages, {expected} are expected"
        raise CodecError("E502", found)
    for number, page in enumerate(pages):
        _check_page(shape, profile, page, number)
        for block in page.encoded_blocks:
            values[block.place] = _vector(block, quantizer, shape.head_dim)
    return values


def _check_page(
    shape: KvTensorShapeV1, profile: KvCompressionProfileV1, page: KvEncodedPageV1, number: int
) -> None:
    """CodecError unless this is the page of that number, whole and as it was written."""
    start, stop = tokens(shape, profile, number)
    for name, expected in (
        ("page_id", number),
        ("token_start", start),
        ("token_count", stop - start),
        ("profile_digest", profile.digest()),
        ("shape_digest", shape.digest()),
        ("page_geometry", profile.page_geometry),
        ("raw_fallback_blocks", raw_blocks(page.encoded_blocks)),
        ("page_digest", page.digest()),
    ):
        found = getattr(page, name)
        if found != expected:
            raise CodecError("E502", f"page {number}: {name} {found}, {expected} is expected")
    found_places = [block.place for block in page.encoded_blocks]
    if found_places != list(places(shape, start, stop)):
        raise CodecError("E502", f"page {number}: its blocks are not the vectors of its tokens")


def _vector(block: KvEncodedBlockV1, quantizer: Quantizer, channels: int) -> NDArray[np.float32]:
    if block.raw_fallback is isinstance(block.encoding, FibCodeV1):
        raise CodecError("E502", f"block {block.place}: raw_fallback contradicts its encoding")
    if isinstance(block.encoding, FibCodeV1):
        return quantizer.restore(block.encoding)
    vector = np.array(block.encoding, np.float32)
    if vector.shape != (channels,) or not np.isfinite(vector).all():
        raise CodecError("E502", f"block {block.place}: not {channels} finite values")
    return vector

"""bitpack: rows of indices as rows of bytes.

Spec: formats/fibquant-compat.md, section "Packed indices".

Index i of a row takes the bits i·w to i·w + w - 1, the lowest first, in bytes whose lowest bit
comes first. Rows end with zero bits up to a whole byte.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError

_WHOLE: Final = {8: "|u1", 16: "<u2"}  # dtypes of widths that fill bytes


def packed_size(count: int, width: int) -> int:
    """Bytes of a row of `count` indices."""
    return -(-count * width // 8)


def pack_indices(indices: NDArray[np.uint32], width: int) -> NDArray[np.uint8]:
    """(n, count) indices below 2^width as (n, bytes)."""
    if width in _WHOLE:
        return indices.astype(_WHOLE[width]).view(np.uint8)
    places = np.arange(width, dtype=np.uint32)
    bits = (indices[..., None] >> places & np.uint32(1)).astype(np.uint8)
    rows, count = indices.shape
    return np.packbits(bits.reshape(rows, count * width), axis=1, bitorder="little")


def unpack_indices(rows: NDArray[np.uint8], count: int, width: int) -> NDArray[np.uint32]:
    """(n, bytes) as (n, count) indices; CodecError for a wrong size or a bit behind the last."""
    expected = packed_size(count, width)
    if rows.shape[1] != expected:
        raise CodecError("E502", f"{rows.shape[1]} bytes of indices, {expected} are expected")
    if width in _WHOLE:
        return np.ascontiguousarray(rows).view(_WHOLE[width]).astype(np.uint32)
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    if bits[:, count * width :].any():
        raise CodecError("E502", "a padding bit behind the last index is set")
    places = bits[:, : count * width].reshape(len(rows), count, width)
    indices = np.zeros((len(rows), count), np.uint32)
    for place in range(width):
        indices |= places[..., place].astype(np.uint32) << np.uint32(place)
    return indices

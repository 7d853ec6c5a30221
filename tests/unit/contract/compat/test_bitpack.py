"""Packed indices: the lowest bit first, and nothing behind the last."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_cli.contract.compat.bitpack import pack_indices, packed_size, unpack_indices
from kvq_cli.errors import CodecError


@given(st.integers(1, 32), st.integers(1, 70), st.integers(0, 3), st.integers(0, 2**32))
def test_indices_survive(width: int, count: int, rows: int, seed: int) -> None:
    """Rows of any width and count come back, in as few bytes as hold their bits."""
    rng = np.random.default_rng(seed)
    indices = rng.integers(0, 2**width, (rows, count), np.uint64).astype(np.uint32)
    packed = pack_indices(indices, width)
    assert packed.shape == (rows, packed_size(count, width))
    assert np.array_equal(unpack_indices(packed, count, width), indices)


@pytest.mark.parametrize(("width", "count"), [(3, 5), (5, 3), (12, 2), (17, 3)])
def test_bits_lie_where_the_page_says(width: int, count: int) -> None:
    """The packed row, read as one little-endian integer, holds index i at bit i · w."""
    indices = [(0x155555555 >> at) % 2**width for at in range(count)]
    (row,) = pack_indices(np.array([indices], np.uint32), width)
    whole = int.from_bytes(row.tobytes(), "little")
    assert whole == sum(index << (at * width) for at, index in enumerate(indices))


@pytest.mark.parametrize("size", [0, 1, 3])
def test_rows_have_one_size(size: int) -> None:
    """A row that is too short or too long is refused."""
    with pytest.raises(CodecError) as refusal:
        unpack_indices(np.zeros((1, size), np.uint8), 4, 3)
    assert refusal.value.error_id == "E502"


@pytest.mark.parametrize("place", [12, 13, 15])
def test_padding_is_zero(place: int) -> None:
    """A bit behind the last index is refused in any row."""
    rows = np.zeros((3, 2), np.uint8)
    assert not unpack_indices(rows, 4, 3).any()
    rows[2, place // 8] |= 1 << place % 8
    with pytest.raises(CodecError) as refusal:
        unpack_indices(rows, 4, 3)
    assert refusal.value.error_id == "E502"

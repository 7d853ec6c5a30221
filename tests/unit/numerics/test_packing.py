"""packing: np.packbits' little-endian order, at every width and length."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import CodecError
from kvq_cli.numerics.packing import (
    check_padding,
    pack_codes,
    row_bytes,
    take_codes,
    unpack_codes,
)
from kvq_cli.numerics.scratch import Scratch

every_width = pytest.mark.parametrize("bits", range(1, 9))
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 70))


def codes_of(shape, bits, seed=0):
    return np.random.default_rng(seed).integers(0, 1 << bits, shape, dtype=np.uint8)


def plainly_packed(codes, bits):
    digits = codes[..., None] >> np.arange(bits, dtype=np.uint8) & 1
    return np.packbits(digits.reshape(*codes.shape[:2], -1), axis=-1, bitorder="little")


def used_scratch(bits):
    """One whose buffers hold ones."""
    scratch = Scratch()
    codes = take_codes((4, 9, 77), scratch)
    codes.fill((1 << bits) - 1)
    out = np.empty((4, 9, row_bytes(77, bits)), np.uint8)
    pack_codes(codes, bits, out, scratch)
    unpack_codes(np.full_like(out, 0xFF), bits, 77, scratch)
    return scratch


def packed(codes, bits, scratch):
    place = take_codes(codes.shape, scratch)
    place[..., : codes.shape[2]] = codes
    out = np.full((*codes.shape[:2], row_bytes(codes.shape[2], bits)), 0xA5, np.uint8)
    pack_codes(place, bits, out, scratch)
    return out


@every_width
@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, seed=st.integers(0, 1 << 16))
def test_rows_are_what_packbits_makes(bits, shape, seed):
    """LSB first, without gaps, padded with zeros, whatever the scratch held before."""
    codes = codes_of(shape, bits, seed)
    expected = plainly_packed(codes, bits)
    assert expected.shape[2] == row_bytes(shape[2], bits)
    assert np.array_equal(packed(codes, bits, used_scratch(bits)), expected)


@every_width
@settings(deadline=None, max_examples=60)
@given(shape=SHAPES, seed=st.integers(0, 1 << 16))
def test_codes_come_back(bits, shape, seed):
    """From read-only bytes, whatever stands in the padding."""
    codes = codes_of(shape, bits, seed)
    rows = plainly_packed(codes, bits)
    used = shape[2] * bits % 8
    if used and seed % 2:
        rows[..., -1] |= 0xFF << used & 0xFF
    rows.flags.writeable = False
    assert np.array_equal(unpack_codes(rows, bits, shape[2], used_scratch(bits)), codes)


@every_width
def test_rows_of_a_larger_plane_pack_alike(bits):
    """Heads of a plane are written to and read from where they lie."""
    codes = codes_of((3, 20, 33), bits)
    rows = plainly_packed(codes, bits)
    plane = np.zeros((5, 20, rows.shape[2]), np.uint8)
    scratch = Scratch()
    place = take_codes(codes.shape, scratch)
    place[..., :33] = codes
    pack_codes(place, bits, plane[::2], scratch)
    assert np.array_equal(plane[::2], rows)
    assert not plane[1::2].any()
    assert np.array_equal(unpack_codes(plane[::2], bits, 33, scratch), codes)


def test_the_example_of_the_spec():
    """With 3 bits, the codes 1, 2, 3 make the bytes d1 00."""
    codes = np.array([[[1, 2, 3]]], np.uint8)
    assert packed(codes, 3, Scratch()).tobytes() == bytes([0xD1, 0x00])


@every_width
@pytest.mark.parametrize("channels", [1, 3, 7, 8, 33])
def test_every_padding_bit_is_checked(bits, channels):
    """A bit behind the last code of any row is refused, and no other bit is."""
    used = channels * bits % 8
    full = np.full((2, 3, row_bytes(channels, bits)), 0xFF, np.uint8)
    if used:
        full[..., -1] = (1 << used) - 1
    check_padding(full, bits, channels, "x")
    for bit in range(used, 8) if used else []:
        for row in ((0, 0), (1, 2)):
            damaged = np.zeros_like(full)
            damaged[(*row, -1)] = 1 << bit
            with pytest.raises(CodecError) as refusal:
                check_padding(damaged, bits, channels, "x")
            assert refusal.value.error_id == "E502"

"""exact: sums that cannot depend on their order, and IEEE subnormals."""

from __future__ import annotations

import ctypes
import mmap
import platform
import sys

import numpy as np
import pytest

from kvq_cli.errors import CodecError
from kvq_cli.numerics.exact import count_sum, require_subnormals, total


def test_count_sum_sums():
    """Sums of unsigned integers keep the reduced axis."""
    found = count_sum(np.full((2, 256, 3), 255, np.uint8), axis=1, largest=255, dtype=np.uint16)
    assert found.shape == (2, 1, 3)
    assert (found == 65280).all()


@pytest.mark.parametrize("values", [np.ones(3), np.ones(3, np.int32), np.ones(3, bool)])
def test_count_sum_refuses_what_is_not_unsigned(values):
    """Floats have no order-free sum; signed sums have no use here."""
    with pytest.raises(TypeError):
        count_sum(values, axis=0, largest=1, dtype=np.uint32)


def test_count_sum_refuses_an_overflow():
    """A sum that could pass its dtype is a bug, not a number."""
    with pytest.raises(OverflowError):
        count_sum(np.ones(258, np.uint8), axis=0, largest=255, dtype=np.uint16)


@pytest.mark.parametrize("tokens", [1, 2, 31, 32, 33, 63, 64, 65, 100, 255, 256, 257, 1000, 65536])
def test_total_sums_over_tokens_modulo_two_to_the_32(tokens):
    """However many tokens are folded onto each other, each is counted once."""
    rng = np.random.default_rng(tokens)
    words = rng.integers(0, 1 << 32, (2, tokens, 3), dtype=np.uint32)
    expected = words.astype(object).sum(axis=1, keepdims=True) % (1 << 32)
    found = total(words)
    assert found.dtype == np.uint32
    assert np.array_equal(found, expected.astype(np.uint32))


def test_subnormals_are_there():
    """An ordinary process passes."""
    require_subnormals()


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or sys.platform != "linux",
    reason="sets the flag by x86 machine code in a Linux page",
)
def test_flush_to_zero_is_noticed():
    """With FTZ and DAZ set in this thread, the check refuses instead of changing results."""
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(b"\x0f\xae\x17\xc3")  # ldmxcsr [rdi]; ret
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    load = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_uint32))(address)
    load(ctypes.c_uint32(0x1F80 | 0x8040))
    try:
        with pytest.raises(CodecError) as refusal:
            require_subnormals()
    finally:
        load(ctypes.c_uint32(0x1F80))
    assert refusal.value.error_id == "E504"
    require_subnormals()

"""lossless: every bit, and the planes that the spec states."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import zstandard

from kvq_cli.codecs import page_of
from kvq_cli.codecs.lossless import BASE, BIAS, Lossless
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import pack


def round_trip(bits, dtype):
    spec = PageSpec(*bits.shape, dtype)
    planes = Lossless().encode(Page(spec, bits), Scratch())
    into = page_of(spec)
    Lossless().decode(planes, spec, into, Scratch())
    return planes, into.bits


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
@pytest.mark.parametrize("shape", [(1, 256, 256), (2, 16, 2048), (64, 1024, 1)])
def test_every_pattern_of_16_bits_survives(dtype, shape):
    """All 65,536 words, infinities and NaN payloads among them, come back."""
    bits = np.arange(1 << 16, dtype=np.uint16).reshape(shape)
    assert np.array_equal(round_trip(bits, dtype)[1], bits)


@pytest.mark.parametrize("seed", range(3))
def test_random_words_of_32_bits_survive(seed):
    """Any F32 word comes back."""
    bits = np.random.default_rng(seed).integers(0, 1 << 32, (3, 40, 33), dtype=np.uint32)
    assert np.array_equal(round_trip(bits, DType.F32)[1], bits)


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("tokens", [1, 23, 24, 128, 129, 600])
def test_reference_is_the_stated_mean(dtype, tokens):
    """A reference is the rounded mean of leading bits over the sampled tokens, and a sign."""
    rng = np.random.default_rng(tokens)
    bits = rng.integers(0, 1 << (8 * dtype.size), (2, tokens, 9)).astype(dtype.bits)
    planes, _ = round_trip(bits, dtype)
    step = -(-tokens // 128)
    sample = bits[:, ::step].astype(np.int64)
    signs = sample >> (8 * dtype.size - 1)
    shift = {DType.F16: 8, DType.BF16: 7, DType.F32: 23}[dtype]
    leading = sample >> shift & (0x7F if dtype is DType.F16 else 0xFF)
    axes = (1,) if tokens >= 24 else (1, 2)
    count = sample.size // (2 * (9 if tokens >= 24 else 1))
    mean = (2 * leading.sum(axis=axes, keepdims=True) + count) // (2 * count)
    if dtype is not DType.F16:
        mean = np.clip(mean, BASE, BASE + 127) - BASE
    majority = 2 * signs.sum(axis=axes, keepdims=True) > count
    assert np.array_equal(planes["reference"], mean + 128 * majority)


def test_upcast_numbers_leave_empty_planes():
    """F32 that was BF16 has two zero mantissa planes, and the same first one."""
    bits = np.random.default_rng(0).standard_normal((2, 30, 8)).astype(np.float32).view(np.uint32)
    bits &= 0xFFFF0000
    wide, _ = round_trip(bits, DType.F32)
    narrow, _ = round_trip((bits >> 16).astype(np.uint16), DType.BF16)
    assert not wide["mantissa1"].any()
    assert not wide["mantissa2"].any()
    for name, plane in narrow.items():
        assert np.array_equal(plane, wide[name]), name


def test_usual_exponents_do_not_escape():
    """Exponents from 11 below to 4 above the reference leave the escapes plane zero."""
    exponents = np.concatenate([np.full(100, 127), [127 - BIAS, 127 + 15 - BIAS]])
    bits = (exponents.astype(np.uint16) << 7).reshape(1, -1, 1)
    planes, _ = round_trip(bits, DType.BF16)
    assert not planes["escapes"].any()
    assert planes["exponents"].ravel().tolist()[-2:] == [0, 15]


@pytest.mark.parametrize("plane", ["exponents", "escapes"])
def test_a_half_byte_after_the_last_channel_is_zero(plane):
    """With an odd number of channels the spare half byte is checked."""
    spec = PageSpec(1, 2, 3, DType.BF16)
    codec = Lossless()
    planes = dict(codec.encode(Page(spec, np.zeros(spec.shape, np.uint16)), Scratch()))
    planes[plane] = planes[plane].copy()
    planes[plane][0, 1, 1] |= 0x10
    with pytest.raises(CodecError) as refusal:
        codec.decode(planes, spec, page_of(spec), Scratch())
    assert refusal.value.error_id == "E502"


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("dtype", list(DType))
def test_channels_of_different_size_are_compressed_well(dtype, level):
    """On channels that differ by octaves, zstd comes within 3 % of exponents given channel."""
    rng = np.random.default_rng(1)
    scales = np.exp2(rng.uniform(-4, 4, (4, 1, 64)))
    values = rng.standard_normal((4, 256, 64)) * scales
    words = values.astype(np.float32).view(np.uint32)
    if dtype is DType.F16:
        words = values.astype(np.float16).view(np.uint16)
    elif dtype is DType.BF16:
        words = (words >> 16).astype(np.uint16)
    mantissa = {DType.F16: 10, DType.BF16: 7, DType.F32: 23}[dtype]
    exponents = words >> mantissa & (0x1F if dtype is DType.F16 else 0xFF)
    bits = words.size * (1 + mantissa)
    for channel in exponents.transpose(0, 2, 1).reshape(-1, 256):
        counts = np.unique(channel, return_counts=True)[1]
        bits -= (counts * np.log2(counts / 256)).sum()
    codec, spec = Lossless(), PageSpec(*words.shape, dtype)
    planes = pack(codec.layout(spec), codec.encode(Page(spec, words), Scratch()))
    coder = zstandard.ZstdCompressor(level=level)
    total = sum(min(len(plane), len(coder.compress(plane))) for plane in planes)
    assert total <= 1.03 * bits / 8
    assert total < len(zstandard.ZstdCompressor(level=19).compress(words.tobytes()))


@pytest.mark.long
@pytest.mark.skipif("KVQ_CAPTURES" not in os.environ, reason="KVQ_CAPTURES names no folder")
def test_captures_are_compressed_well():
    """Every capture of the folder: within 3 % of the bound, and smaller than zstd -19."""
    from benchmarks.lossless_sizes import sizes

    files = [
        path
        for folder in ("canonical", "hf")
        for path in sorted((Path(os.environ["KVQ_CAPTURES"]) / folder).glob("*.safetensors"))
        if "query" not in path.name
    ]
    assert files
    for row in map(sizes, files):
        assert max(row[f"over_bound_{level}"] for level in (1, 2, 3)) <= 0.03, row
        assert row["ratio"] > row["zstd_19_ratio"], row

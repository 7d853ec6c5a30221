"""polarquant: a Hadamard matrix without signs and Lloyd-Max levels in torch, packed."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import torch
from polarengine_vllm.kv_cache import PolarKVQuantizer

from benchmarks.methods import Later, Method

PACKAGES: Final = ("polarquant", "torch")
set_threads = torch.set_num_threads


@cache
def tool(bits: int, channels: int) -> Any:
    return PolarKVQuantizer(channels, bits, "cpu")


def encode(bits: int, block: Any) -> Any:
    return tool(bits, block.shape[-1]).quantize(torch.from_numpy(block))


def decode(bits: int, encoded: Any) -> Later:
    codes, norms = encoded
    channels = codes.shape[-1] * 8 // bits
    return Later(tool(bits, channels).dequantize(codes, norms, (len(codes), channels)))


def methods(_heads: int) -> list[Method]:
    note = "gives BF16"
    return [
        Method(f"polarquant {bits}", partial(encode, bits), partial(decode, bits), note=note)
        for bits in (4, 3, 2)
    ]

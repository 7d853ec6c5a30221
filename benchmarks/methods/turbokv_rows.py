"""turbokv: TurboQuant's first algorithm in torch, packed, for 4 and 2 bits; norms in half."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import torch

from benchmarks.methods import Method, apart

PACKAGES: Final = ("turbokv", "torch")
set_threads = torch.set_num_threads
quantizer: Final = apart("turbokv", "turboquant.quantizer")


@cache
def tool(bits: int, channels: int) -> Any:
    return quantizer.TurboQuantizer(channels, bits, "cpu", seed=0)


def encode(bits: int, block: Any) -> Any:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    return tool(bits, block.shape[-1]).quantize(rows)


def decode(bits: int, encoded: Any) -> Any:
    codes, norms = encoded
    return tool(bits, codes.shape[-1] * 8 // bits).dequantize(codes, norms).numpy()


def methods(_heads: int) -> list[Method]:
    return [
        Method(f"turbokv {bits}", partial(encode, bits), partial(decode, bits)) for bits in (4, 2)
    ]

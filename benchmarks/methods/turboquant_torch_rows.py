"""turboquant-torch: TurboQuant by a fast Hadamard transform in torch, each code in eight bytes."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import torch

from benchmarks.methods import Method, apart, nbytes, packed

PACKAGES: Final = ("turboquant-torch", "torch")
set_threads = torch.set_num_threads
core: Final = apart("turboquant-torch", "turboquant.core")


@cache
def tool(unbiased: bool, bits: int, channels: int) -> Any:
    return core.TurboQuant(channels, bits, unbiased=unbiased)


def encode(unbiased: bool, bits: int, block: Any) -> Any:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    return tool(unbiased, bits, block.shape[-1]).quantize(rows)


def decode(encoded: Any) -> Any:
    unbiased = encoded.qjl_output is not None
    return tool(unbiased, encoded.bit_width, encoded.dim).dequantize(encoded).numpy()


def stored(encoded: Any) -> int:
    """All bits of codes and signs, and norms as they are."""
    signs = encoded.qjl_output
    norms = [encoded.mse_norms] if signs is None else [encoded.mse_norms, signs.norms]
    return packed(encoded.mse_codes.numel(), encoded.bit_width) + nbytes(norms)


def held(encoded: Any) -> int:
    parts = [encoded.mse_codes, encoded.mse_norms]
    return nbytes(parts if encoded.qjl_output is None else [*parts, *encoded.qjl_output])


def methods(_heads: int) -> list[Method]:
    return [
        Method(
            f"turboquant-torch {'prod' if unbiased else 'mse'} {bits}",
            partial(encode, unbiased, bits),
            decode,
            stored,
            held,
        )
        for unbiased in (False, True)
        for bits in (4, 3, 2)
    ]

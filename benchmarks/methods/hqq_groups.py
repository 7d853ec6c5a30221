"""hqq: half-quadratic groups of channels, with its optimiser and without."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
from hqq.core.quantize import Quantizer

from benchmarks.methods import Method

PACKAGES: Final = ("hqq", "torch")
set_threads = torch.set_num_threads


def encode(bits: int, optimize: bool, block: Any) -> Any:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    return Quantizer.quantize(
        rows,
        nbits=bits,
        group_size=64,
        axis=1,
        optimize=optimize,
        device="cpu",
        compute_dtype=torch.float16,
    )


def decode(encoded: Any) -> Any:
    return Quantizer.dequantize(*encoded).numpy()


def stored(encoded: Any) -> int:
    """Codes, and scales and zeros as halves, which hqq would compute with."""
    codes, meta = encoded
    return int(codes.nbytes + 2 * meta["scale"].numel() + 2 * meta["zero"].numel())


def held(encoded: Any) -> int:
    codes, meta = encoded
    return int(codes.nbytes + meta["scale"].nbytes + meta["zero"].nbytes)


def methods(_heads: int) -> list[Method]:
    return [
        Method(f"hqq {bits} g64{word}", partial(encode, bits, optimize), decode, stored, held)
        for bits, optimize, word in (
            (8, False, ""),
            (4, False, ""),
            (4, True, ", optimised"),
            (2, False, ""),
        )
    ]

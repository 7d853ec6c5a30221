"""turboquant: TurboQuant's first implementation in torch, by matrices, each code in a byte."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import numpy as np
import torch

from benchmarks.methods import Method, apart, nbytes, packed

PACKAGES: Final = ("turboquant", "torch")
set_threads = torch.set_num_threads
vars(np).setdefault("trapz", np.trapezoid)  # it asks for the name that NumPy 2.4 dropped
core: Final = apart("turboquant", "turboquant.core")
NOTES: Final = {
    "MSE": "np.trapz given back; its levels are not Lloyd-Max's",
    "IP": "np.trapz given back; its correction is too small by the root of D",
}


@cache
def tool(kind: str, bits: int, channels: int) -> Any:
    return getattr(core, f"TurboQuant{kind}")(channels, bits, device="cpu")


def encode(kind: str, bits: int, block: Any) -> tuple[str, int, Any]:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    return kind, bits, tool(kind, bits, block.shape[-1]).quantize(rows)


def decode(encoded: tuple[str, int, Any]) -> Any:
    kind, bits, parts = encoded
    return tool(kind, bits, parts[0].shape[-1]).dequantize(*parts).numpy()


def stored(encoded: tuple[str, int, Any]) -> int:
    """All bits of codes and signs, and norms as they are."""
    _, bits, parts = encoded
    return packed(parts[0].numel(), bits) + nbytes(list(parts[1::2]))


def held(encoded: tuple[str, int, Any]) -> int:
    return nbytes(encoded[2])


def methods(_heads: int) -> list[Method]:
    return [
        Method(
            f"turboquant 0.2 {kind.lower()} {bits}",
            partial(encode, kind, bits),
            decode,
            stored,
            held,
            note=note,
        )
        for kind, note in NOTES.items()
        for bits in (4, 3, 2)
    ]

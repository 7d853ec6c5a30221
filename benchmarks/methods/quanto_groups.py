"""optimum-quanto, the backend of the quantized cache of transformers; scales in half."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch
from optimum.quanto import AbsmaxOptimizer, MaxOptimizer, qint2, qint4, qint8, quantize_weight

from benchmarks.methods import Method

PACKAGES: Final = ("optimum-quanto", "torch")
set_threads = torch.set_num_threads
BYTES: Final = AbsmaxOptimizer()
GROUPS: Final = MaxOptimizer()


def grouped(kind: Any, axis: int, group: int, block: Any) -> Any:
    """Groups of neighbouring channels (axis 0), or of neighbouring tokens (axis -1: KIVI)."""
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    scale, shift = GROUPS(rows, kind, axis, group)
    return quantize_weight(rows, kind, axis, scale, shift, group)


def whole(axis: int, block: Any) -> Any:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    return quantize_weight(rows, qint8, axis, BYTES(rows, qint8, axis))


def decode(encoded: Any) -> Any:
    return encoded.dequantize().numpy()


def stored(encoded: Any) -> int:
    codes = encoded._data  # noqa: SLF001 - quanto has no other name for it
    codes = getattr(codes, "_data", codes)
    parts = [codes, encoded._scale, getattr(encoded, "_shift", None)]  # noqa: SLF001 - likewise
    return sum(part.nbytes for part in parts if part is not None)


def methods(_heads: int) -> list[Method]:
    return [
        Method("quanto int8 token", partial(whole, 0), decode, stored),
        Method(
            "quanto int8 channel",
            partial(whole, -1),
            decode,
            stored,
            note="one scale for all heads",
        ),
        Method("quanto int4 g64", partial(grouped, qint4, 0, 64), decode, stored),
        Method("quanto int4 g32", partial(grouped, qint4, 0, 32), decode, stored),
        Method("quanto int4 channel g64", partial(grouped, qint4, -1, 64), decode, stored),
        Method("quanto int4 channel g32", partial(grouped, qint4, -1, 32), decode, stored),
        Method("quanto int2 g64", partial(grouped, qint2, 0, 64), decode, stored),
        Method("quanto int2 channel g32", partial(grouped, qint2, -1, 32), decode, stored),
    ]

"""llama.cpp's block formats, by the NumPy code of gguf."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
from gguf import GGMLQuantizationType, quants

from benchmarks.methods import Method

PACKAGES: Final = ("gguf", "numpy")


def encode(kind: GGMLQuantizationType, block: Any) -> Any:
    return quants.quantize(block.astype(np.float32), kind)


def decode(kind: GGMLQuantizationType, encoded: Any) -> Any:
    return quants.dequantize(encoded, kind)


def methods(_heads: int) -> list[Method]:
    return [
        Method(f"gguf {kind.name}", partial(encode, kind), partial(decode, kind), note="gives F32")
        for kind in (
            GGMLQuantizationType.Q8_0,
            GGMLQuantizationType.Q4_0,
            GGMLQuantizationType.Q4_1,
        )
    ]

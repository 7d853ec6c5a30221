"""FP8 by the casts of ml_dtypes, one scale a row."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import Method

PACKAGES: Final = ("ml_dtypes", "numpy")
KINDS: Final = {"e4m3": (ml_dtypes.float8_e4m3fn, 448), "e5m2": (ml_dtypes.float8_e5m2, 57344)}


def encode(kind: str, block: NDArray[np.float16]) -> tuple[NDArray[Any], NDArray[np.float16]]:
    dtype, largest = KINDS[kind]
    values = block.astype(np.float32)
    scales = np.abs(values).max(axis=-1, keepdims=True) / np.float32(largest)
    scales = np.where(scales == 0, np.float32(1), scales).astype(np.float16)
    scaled = np.clip(values / scales.astype(np.float32), -largest, largest)
    return scaled.astype(dtype), scales


def decode(encoded: tuple[NDArray[Any], NDArray[np.float16]]) -> NDArray[np.float16]:
    codes, scales = encoded
    return (codes.astype(np.float32) * scales.astype(np.float32)).astype(np.float16)


def methods(_heads: int) -> list[Method]:
    return [Method(f"ml_dtypes {kind} row", partial(encode, kind), decode) for kind in KINDS]

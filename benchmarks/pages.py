"""pages: what kvq calls an array of (H, T, D)."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from kvq_cli.page import DType, PageSpec


def spec_of(bits: NDArray[Any], dtype: DType) -> PageSpec:
    heads, tokens, channels = bits.shape
    return PageSpec(heads, tokens, channels, dtype)

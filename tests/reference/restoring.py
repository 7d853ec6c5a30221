"""restoring: coded numbers and scales to the bits of elements.

Part of the reference reader: written from `formats/codecs/README.md` alone, without kvq_cli.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from reference.refused import need

WIDTHS = {"F16": 2, "BF16": 2, "F32": 4}
LARGEST = {"F16": 0x477FE000, "BF16": 0x7F7F0000, "F32": 0x7F7FFFFF}  # as float32 bits


def largest_scale(params: Any, dtype: str, largest: float) -> Any:
    """The scale of a group that reaches as far as any can."""
    furthest = float(number(LARGEST[dtype])) * (2 if params.get("center") else 1)
    scale = np.float32(min(furthest, float(number(LARGEST["F32"])))) / np.float32(largest)
    if params["scale"] == "f32":
        return scale
    return np.float16(scale if scale < 65520 else 65504)


def check_scales(scales: Any, most: Any) -> None:
    # Comparisons with NaN are false.
    need(bool(((scales <= most) & ~np.signbit(scales)).all()), "a scale that no encoder writes")


def restored(numbers: Any, factors: Any, arrays: dict[str, Any], dtype: str) -> Any:
    """numbers · factors + means in float32, as bits of the dtype, kept finite."""
    return narrow(kept(numbers, factors, arrays, dtype), dtype)


def restored_twice(numbers: Any, factors: Any, arrays: dict[str, Any], dtype: str) -> Any:
    """Likewise for rotated rows: small halves are rounded twice."""
    values = kept(numbers, factors, arrays, dtype)
    if dtype == "F16":
        values = (values * np.float32(2.0**-112)).astype("<f8") * 2.0**112
    return narrow(values, dtype)


def kept(numbers: Any, factors: Any, arrays: dict[str, Any], dtype: str) -> Any:
    limit = number(LARGEST[dtype])
    with np.errstate(over="ignore"):
        values = numbers.astype("<f4") * factors
        if "means" in arrays:
            means, centred = widened(arrays["means"], dtype), arrays.get("centred", np.array(1))
            need(np.isfinite(means).all(), "a mean that is not finite")
            need(centred.max() <= 1, "a token that is neither centred nor not")
            values = np.where(centred == 1, values + means, values)
    return np.clip(values, -limit, limit)


def number(bits: int) -> Any:
    return np.array(bits, "<u4").view("<f4")


def widened(words: Any, dtype: str) -> Any:
    if dtype == "F16":
        return words.view("<f2").astype("<f4")
    return (words.astype("<u4") << (16 if dtype == "BF16" else 0)).view("<f4")


def narrow(values: Any, dtype: str) -> Any:
    """Bits of finite float32 values in a dtype, rounded half to even."""
    if dtype == "F16":
        return values.astype("<f2").view("<u2")
    bits = values.view("<u4")
    if dtype == "F32":
        return bits
    return ((bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")

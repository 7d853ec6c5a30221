"""recipes: captures of container vectors, from the rule that their JSON states.

A tensor of a recipe has name, dtype, shape and `paint`: element i is ((k mod 251) - 125) / 32
with k = paint + i, exact in F16, BF16 and F32; integers and other dtypes are the bytes k mod
251. `bits` puts other bit patterns at some elements: {"3": "7e00"}, big-endian hexadecimal.
`tokens` are those of a padded tensor, [..., tokens, channels]: behind them are zeros. `hex` are
bytes in place of painted ones.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from support.captures import safetensors_bytes

SIZES = {"U8": 1, "I32": 4, "I64": 8, "F64": 8}
WORDS = {"F16": "<u2", "BF16": "<u2", "F32": "<u4"}


def capture_bytes(recipe: dict[str, Any]) -> bytes:
    tensors = {
        tensor["name"]: (tensor["dtype"], tensor["shape"], tensor_bytes(tensor))
        for tensor in recipe["tensors"]
    }
    return safetensors_bytes(tensors, recipe.get("metadata"))


def tensor_bytes(tensor: dict[str, Any]) -> bytes:
    if "hex" in tensor:
        return bytes.fromhex(tensor["hex"])
    count = math.prod(tensor["shape"])
    if tensor["dtype"] in SIZES:
        steps = np.arange(count * SIZES[tensor["dtype"]], dtype=np.int64) + tensor["paint"]
        return (steps % 251).astype("u1").tobytes()
    values = ((np.arange(count, dtype=np.int64) + tensor["paint"]) % 251 - 125) / np.float32(32)
    words = values.astype("<f4").view("<u4")
    if tensor["dtype"] == "F16":
        words = values.astype("<f2").view("<u2")
    elif tensor["dtype"] == "BF16":
        words = (words >> 16).astype("<u2")
    words = words.astype(WORDS[tensor["dtype"]])
    for at, bits in tensor.get("bits", {}).items():
        words[int(at)] = int(bits, 16)
    words.reshape(-1, *tensor["shape"][-2:])[:, tensor.get("tokens", count) :] = 0
    return words.tobytes()

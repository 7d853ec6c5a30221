"""prompt_caches: what mlx-lm saves, of both generations, by explicit recipe and without mlx-lm.

    new_cache([layer(5, room=8), layer(5, kind="RotatingKVCache", numbers=(9, 0, 5, 5))])
    old_cache([layer(5)], {"model": "m"})

A layer is told by its class, its state and its numbers. States are keys and values of kv_bits
with seed_of(role, layer); room behind the tokens holds zeros, or what `behind` says.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from support.captures import ROLES, kv_bits, safetensors_bytes, seed_of

Entry = tuple[str, Sequence[int], bytes]
Layer = dict[str, Any]


def scalar(number: int) -> Entry:
    """A number as mlx-lm 0.32 has it."""
    return "I32", (), number.to_bytes(4, "little", signed=True)


def layer(
    tokens: int,
    *,
    room: int | None = None,
    behind: int = 0,
    kind: str = "KVCache",
    numbers: Sequence[int] | None = None,
    heads: int = 2,
    channels: int = 8,
    batch: int = 1,
    dtype: str = "F16",
    roles: Sequence[str] = ROLES,
) -> Layer:
    """`numbers` are offset and the like; without them there is an offset, of the tokens."""
    told = (tokens,) if numbers is None else tuple(numbers)
    shape = (batch, heads, room or tokens, channels)
    return {"kind": kind, "tokens": tokens, "shape": shape, "behind": behind, "dtype": dtype,
            "roles": roles, "numbers": told}  # fmt: skip


def rows(told: Layer, role: str, number: int) -> np.ndarray:
    """The bits of keys or values, as they are saved."""
    bits = kv_bits(told["shape"], told["dtype"], seed_of(role, number))
    bits[:, :, told["tokens"] :] = told["behind"]
    return bits


def quantised(tokens: int, *, bits: int = 4, group: int = 32, channels: int = 64) -> Layer:
    """A layer of QuantizedKVCache, of bytes that mean nothing."""
    shapes = ((1, 2, tokens, channels * bits // 32), *((1, 2, tokens, channels // group),) * 2)
    state = {
        f"{place}.{part}": (dtype, shape, _bytes(dtype, shape))
        for place in range(2)
        for part, (dtype, shape) in enumerate(zip(("U32", "F16", "F16"), shapes, strict=True))
    }
    return {"kind": "QuantizedKVCache", "state": state, "numbers": (tokens, group, bits)}


def other(kind: str, state: Mapping[str, Entry]) -> Layer:
    """A layer of another class, with its state by places."""
    return {"kind": kind, "state": state, "numbers": ()}


def new_cache(
    layers: Sequence[Layer],
    metadata: Mapping[str, str] | None = None,
    more: Mapping[str, Entry] | None = None,
) -> bytes:
    """As mlx-lm saves it from 0.32 on; `more` are tensors beside, or in place, of others."""
    tensors, numbers = {}, []
    for at, told in enumerate(layers):
        tensors |= _state(told, at)
        for place, number in enumerate(told["numbers"], start=2):
            numbers.append(f"{at}.{place}")
            tensors[numbers[-1]] = scalar(number)
    said = {f"0.{key}": text for key, text in (metadata or {}).items()}
    said |= {f"1.{at}": told["kind"] for at, told in enumerate(layers)} | {"2.0": ""}
    for at, name in enumerate(numbers, start=1):
        said |= {f"2.{at}.0": name, f"2.{at}.1": "scalar"}
    return safetensors_bytes({**tensors, **(more or {})}, said)


def old_cache(
    layers: Sequence[Layer],
    metadata: Mapping[str, str] | None = None,
    more: Mapping[str, Entry] | None = None,
) -> bytes:
    """As mlx-lm saved it up to 0.31, where a KVCache tells no numbers."""
    tensors: dict[str, Entry] = {}
    said: dict[str, str] = {}
    for at, told in enumerate(layers):
        tensors |= _state(told, at)
        numbers = () if told["kind"] == "KVCache" else told["numbers"]
        said |= {f"0.{at}.{place}": str(number) for place, number in enumerate(numbers)}
        said |= {f"2.{at}": told["kind"]} | ({} if numbers else {f"0.{at}": ""})
    said |= {f"1.{key}": text for key, text in (metadata or {}).items()}
    return safetensors_bytes({**tensors, **(more or {})}, said)


def _state(told: Layer, at: int) -> dict[str, Entry]:
    if "state" in told:
        return {f"{at}.{place}": entry for place, entry in told["state"].items()}
    return {
        f"{at}.{ROLES.index(role)}": (told["dtype"], told["shape"], rows(told, role, at).tobytes())
        for role in told["roles"]
    }


def _bytes(dtype: str, shape: Sequence[int]) -> bytes:
    size = math.prod(shape) * {"U32": 4, "F16": 2}[dtype]
    return (np.arange(size) % 251).astype("u1").tobytes()

"""captures: small safetensors files by explicit recipe, written without kvq_cli.

    safetensors_bytes({"key": ("F16", (1, 2, 2, 5, 8), data)}, {"model": "m"})
    raw_safetensors('{"a": ...}', data=4)      any header text, for hostile files
    canonical_capture(layers=2, heads=2, tokens=5, channels=8, dtype="BF16")
    per_layer_capture(tokens=(5, 9), heads=2, channels=8, spelling="layer_{layer}_{role}")
    write_folder(path, vllm_files("vllm_cpu", block=4))
    lmcache_file(heads=2)

Element bits of a capture are kv_bits(shape, dtype, seed) with seed_of(role, layer).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

WIDTHS = {"F16": "<u2", "BF16": "<u2", "F32": "<u4"}
ROLES = ("key", "value")


def raw_safetensors(header: str | bytes, data: int | bytes = 0, length: int | None = None) -> bytes:
    """A file of this header text and data (a number means zeros); `length` may lie."""
    text = header.encode() if isinstance(header, str) else header
    stated = len(text) if length is None else length
    return stated.to_bytes(8, "little") + text + (bytes(data) if isinstance(data, int) else data)


def safetensors_bytes(
    tensors: Mapping[str, tuple[str, Sequence[int], bytes]],
    metadata: Mapping[str, str] | None = None,
    more: Mapping[str, Mapping[str, object]] | None = None,
) -> bytes:
    """Tensors in the given order, one after the other, header padded to 8.

    `more` are further members of entries, by tensor.
    """
    members: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [at, at + len(data)]
        entry = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        members[name] = entry | dict((more or {}).get(name, {}))
        at += len(data)
    text = json.dumps(members).encode()
    text += b" " * (-len(text) % 8)
    return raw_safetensors(text, b"".join(data for _, _, data in tensors.values()))


def kv_values(shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """float32 values as keys have them: normal, with a few strong channels and a bias."""
    rng = np.random.Generator(np.random.PCG64(seed))
    values = rng.standard_normal(tuple(shape), dtype=np.float32)
    channel = np.arange(shape[-1])
    return values * np.where(channel % 7 == 3, np.float32(8), np.float32(1)) + (channel % 5 == 1)


def kv_bits(shape: Sequence[int], dtype: str = "F16", seed: int = 0) -> np.ndarray:
    """The bits of kv_values in a dtype of safetensors."""
    values = kv_values(shape, seed).astype(np.float32)
    if dtype == "F16":
        return values.astype("<f2").view("<u2")
    words = values.view("<u4")
    return words if dtype == "F32" else (words >> 16).astype("<u2")


def seed_of(role: str, layer: int = 0) -> int:
    return 2 * layer + ROLES.index(role)


def canonical_capture(
    *,
    layers: int = 2,
    heads: int = 2,
    tokens: int = 5,
    channels: int = 8,
    batch: int | None = 1,
    dtype: str = "F16",
    roles: Sequence[str] = ROLES,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """`key` and `value`, [batch, layers, kv_heads, tokens, head_dim]; batch None leaves it out."""
    shape = (layers, heads, tokens, channels) if batch is None else (batch, layers, heads, tokens)
    shape = shape if batch is None else (*shape, channels)
    return safetensors_bytes(
        {role: (dtype, shape, kv_bits(shape, dtype, seed_of(role)).tobytes()) for role in roles},
        metadata,
    )


def per_layer_capture(
    *,
    tokens: Sequence[int] = (5, 5),
    heads: int = 2,
    channels: int = 8,
    batch: int | None = 1,
    dtype: str = "F16",
    spelling: str = "layers.{layer}.{role}",
    roles: Mapping[str, str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """A tensor a layer and role, layer i with tokens[i]; `roles` says how roles are spelled."""
    tensors = {}
    for layer, count in enumerate(tokens):
        for role in ROLES:
            shape = (heads, count, channels) if batch is None else (batch, heads, count, channels)
            name = spelling.format(layer=layer, role=(roles or {}).get(role, role))
            tensors[name] = (dtype, shape, kv_bits(shape, dtype, seed_of(role, layer)).tobytes())
    return safetensors_bytes(tensors, metadata)


def paint(shape: Sequence[int], dtype: str = "U8") -> bytes:
    """Bytes i mod 251: every misplaced read shows."""
    size = {"U8": 1, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}[dtype]
    return (np.arange(math.prod(shape) * size, dtype=np.int64) % 251).astype(np.uint8).tobytes()


def vllm_files(
    layout: str = "vllm",
    *,
    layers: Sequence[int] = (0, 1),
    heads: int = 2,
    tokens: int = 8,
    channels: int = 4,
    block: int = 4,
    dtype: str = "BF16",
    name: str = "model.layers.{}.self_attn.attn.safetensors",
    metadata: Mapping[str, str] | None = None,
) -> dict[str, bytes]:
    """Files of a vLLM dump by name; rows are those of per_layer_capture, kv_bits of each layer."""
    files = {}
    for layer in layers:
        key, value = (
            kv_bits((heads, tokens, channels), dtype, seed_of(role, layer)) for role in ROLES
        )
        array = vllm_tensor(layout, key, value, block)
        tensor = (dtype, array.shape, array.tobytes())
        files[name.format(layer)] = safetensors_bytes({"kv_cache": tensor}, metadata)
    return files


def vllm_tensor(layout: str, key: np.ndarray, value: np.ndarray, block: int) -> np.ndarray:
    """Rows of (heads, tokens, channels) as a layout has them."""
    heads, tokens, channels = key.shape
    if layout == "vllm":
        return np.concatenate([key, value], axis=2).swapaxes(0, 1).copy()
    if layout == "vllm_split":
        return np.stack([key, value]).swapaxes(1, 2).reshape(2, tokens, heads * channels)
    if layout == "vllm_mla":
        return key.swapaxes(0, 1).reshape(tokens, heads * channels)
    found = np.empty((tokens, heads, 2 * channels), key.dtype)
    for head in range(heads):
        for start in range(0, tokens, block):
            part = slice(start, start + block)
            buffer = np.concatenate([key[head, part].T.ravel(), value[head, part].ravel()])
            found[part, head] = buffer.reshape(block, 2 * channels)
    return found


def lmcache_file(
    *,
    layers: int = 2,
    heads: int = 2,
    tokens: int = 8,
    channels: int = 4,
    dtype: str = "F16",
    members: Mapping[str, object] | None = None,
) -> bytes:
    """A file as LMCache's GDS backend writes it; `members` in place of what it adds."""
    rows = [
        kv_bits((heads, tokens, channels), dtype, seed_of(role, layer)).swapaxes(0, 1)
        for role in ROLES
        for layer in range(layers)
    ]
    data = b"".join(each.tobytes() for each in rows)
    shape = [2, layers, tokens, heads * channels]
    added = {"fmt": 1, "__metadata__": {"lmcache_version": "1"}} if members is None else members
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)], **added}
    return raw_safetensors(json.dumps({"kvcache": entry}).ljust(4088), data)


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    """The files in a folder that is made for them."""
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path

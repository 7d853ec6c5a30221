"""recipes: captures of container vectors, from the rule that their JSON states.

A tensor of a recipe has name, dtype, shape and `paint`: element i is ((k mod 251) - 125) / 32
with k = paint + i, exact in F16, BF16 and F32; integers and other dtypes are the bytes k mod
251. `bits` puts other bit patterns at some elements: {"3": "7e00"}, big-endian hexadecimal.
`tokens` are those of a padded tensor, [..., tokens, channels]: behind them are zeros. `hex` are
bytes in place of painted ones.
`members` are further ones of its entry in the header.

A folder has `files` by name: each a capture of its own, or `text`, or `hex`, or so many
`zeros`, or a symbolic `link` to a name, or a `pipe`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
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
    members = {each["name"]: each.get("members", {}) for each in recipe["tensors"]}
    return safetensors_bytes(tensors, recipe.get("metadata"), members)


def capture_files(recipe: dict[str, Any]) -> dict[str, bytes]:
    """The files of a folder by name; one file has the name ""."""
    if "files" not in recipe:
        return {"": capture_bytes(recipe)}
    return {
        name: file["text"].encode() if "text" in file else capture_bytes(file)
        for name, file in recipe["files"].items()
    }


def lay_out(recipe: dict[str, Any], path: Path) -> Path:
    """The file or folder of a recipe, written to a path."""
    if "files" in recipe:
        path.mkdir()
        for name, file in recipe["files"].items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            lay_out(file, path / name)
    elif "link" in recipe:
        path.symlink_to(recipe["link"])
    elif "pipe" in recipe:
        os.mkfifo(path)
    elif "zeros" in recipe:
        path.touch()
        os.truncate(path, recipe["zeros"])
    elif "text" in recipe or "hex" in recipe:
        path.write_bytes(recipe.get("text", "").encode() or bytes.fromhex(recipe.get("hex", "")))
    else:
        path.write_bytes(capture_bytes(recipe))
    return path


def tensor_bytes(tensor: dict[str, Any]) -> bytes:
    if "hex" in tensor:
        return bytes.fromhex(tensor["hex"])
    count = math.prod(tensor["shape"])
    if tensor["dtype"] in SIZES:
        size = SIZES[tensor["dtype"]]
        steps = np.arange(count * size, dtype=np.int64) + tensor["paint"]
        data = bytearray((steps % 251).astype("u1").tobytes())
        for at, bits in tensor.get("bits", {}).items():
            data[int(at) * size : (int(at) + 1) * size] = bytes.fromhex(bits)[::-1]
        return bytes(data)
    values = ((np.arange(count, dtype=np.int64) + tensor["paint"]) % 251 - 125) / np.float32(32)
    words = values.astype("<f4").view("<u4")
    if tensor["dtype"] == "F16":
        words = values.astype("<f2").view("<u2")
    elif tensor["dtype"] == "BF16":
        words = (words >> 16).astype("<u2")
    words = words.astype(WORDS[tensor["dtype"]])
    for at, bits in tensor.get("bits", {}).items():
        words[int(at)] = int(bits, 16)
    if "tokens" in tensor:
        words.reshape(-1, *tensor["shape"][-2:])[:, tensor["tokens"] :] = 0
    return words.tobytes()

"""golden: containers of 16 KiB and more, of unlike kinds, from explicit recipes.

path = golden("lossless", folder)

int8      one part, codes and scales in planes under zstd, a protected head
lossless  a part for each of three layers, tensors that are carried along, a note of identity
tables    keys by fib_quant with two tables, values by kivi, everything stored uncoded
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kvq_cli import pipeline
from kvq_cli.page import Role
from kvq_cli.steps.bind import Terms, bind_profile
from support.captures import canonical_capture, kv_bits, paint, safetensors_bytes

SMALLEST = 16 << 10
FACTS = {"attention_kind": "gqa", "query_heads": "4", "rope_state": "post"}


def _profile(folder: Path, name: str, **members: Any) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"schema": "kvq_profile_v1", "name": name, **members}))
    return path


def _int8(folder: Path) -> tuple[bytes, list[Path]]:
    rules = [{"role": "key", "codec": {"name": "int8", "axis": "channel"}}, {"codec": "int8"}]
    told = {"rules": rules, "page_tokens": 32, "protected": {"heads": [[1, 2]]}}
    return canonical_capture(tokens=34, channels=24), [_profile(folder, "codes", **told)]


def _lossless(folder: Path) -> tuple[bytes, list[Path]]:
    tensors: dict[str, Any] = {"positions": ("I64", (70,), paint((70,), "F64"))}
    for layer, tokens in enumerate((34, 14, 1)):
        for role, channels, dtype in (("key", 24, "BF16"), ("value", 16, "F32")):
            shape = (1, 2, tokens, channels)
            bits = kv_bits(shape, dtype, 2 * layer).tobytes()
            tensors[f"layers.{layer}.{role}"] = (dtype, shape, bits)
    tensors["nothing"] = ("U8", (0, 3), b"")
    tensors["query"] = ("F32", (3, 5, 7), paint((3, 5, 7), "F32"))
    return safetensors_bytes(tensors, FACTS | {"model": "golden"}), []


def _tables(folder: Path) -> tuple[bytes, list[Path]]:
    data = canonical_capture(tokens=20, channels=32, metadata=FACTS)
    source, bound = folder / "bound", folder / "keys.json"
    source.write_bytes(data)
    terms = Terms(block=4, size=256, axis="per_channel", page_tokens=32)
    bound.write_text(json.dumps(bind_profile(source, Role.KEY, terms).to_json()))
    rules = [{"codec": {"name": "kivi", "bits": 4, "axis": "token", "group": 32}}]
    storage = {"entropy": "none"}
    return data, [bound, _profile(folder, "values", rules=rules, storage=storage)]


RECIPES = {"int8": _int8, "lossless": _lossless, "tables": _tables}


def golden(name: str, folder: Path) -> Path:
    """The container of this name, made in a folder."""
    data, profiles = RECIPES[name](folder)
    source, target = folder / "source", folder / f"{name}.kvq"
    source.write_bytes(data)
    pipeline.compress(source, target, profiles=profiles, threads=1, force=True)
    assert target.stat().st_size >= SMALLEST
    return target


@contextmanager
def piped(data: bytes) -> Iterator[Path]:
    """A path that is read as a pipe with these bytes, of which a pipe holds 64 KiB."""
    assert len(data) <= 1 << 16
    end, begin = os.pipe()
    try:
        os.write(begin, data)
        os.close(begin)
        yield Path(f"/dev/fd/{end}")
    finally:
        os.close(end)

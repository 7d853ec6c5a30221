"""writer: the header of a new safetensors file, the same bytes for the same content.

Spec: formats/capture.md, section "Writing".

Tensors lie in the official writer's order: dtypes from wide to narrow, then names. That keeps
every tensor aligned to its elements. Metadata is sorted by key, which the official writer
leaves to chance; without metadata the bytes are the official writer's own.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from kvq_cli.capture.header import LENGTH_SIZE, METADATA, Header, parse_header
from kvq_cli.words import ELEMENT_BITS

ALIGNMENT: Final = 8
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
WIDTH_ORDER: Final = {dtype: -at for at, dtype in enumerate(ELEMENT_BITS)}


def new_header(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    more: Mapping[str, Mapping[str, object]] = NOTHING,
    size: int = 0,
) -> Header:
    """The header of a file of these tensors, and where each lies; see header_bytes."""
    raw = header_bytes(tensors, metadata, more, size)
    bits = sum(math.prod(shape) * ELEMENT_BITS[dtype] for _, dtype, shape in tensors)
    return parse_header(raw, len(raw) + bits // 8)


def header_bytes(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]],
    metadata: Mapping[str, str],
    more: Mapping[str, Mapping[str, object]] = NOTHING,
    size: int = 0,
) -> bytes:
    """Length and JSON for tensors of name, dtype and shape; new_header tells where each lies.

    `more` are members of single tensors behind those three; `size` is the least of bytes.
    """
    members: dict[str, Any] = {}
    if metadata:
        members[METADATA] = {key: metadata[key] for key in sorted(metadata)}
    at = 0
    for name, dtype, shape in sorted(tensors, key=lambda one: (WIDTH_ORDER[one[1]], one[0])):
        if name in members or name == METADATA:
            raise AssertionError(f"two tensors are named {name!r}")
        nbytes, rest = divmod(math.prod(shape) * ELEMENT_BITS[dtype], 8)
        if rest:
            raise AssertionError(f"{dtype} of shape {shape} ends inside a byte")
        members[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + nbytes]}
        members[name] |= more.get(name, NOTHING)
        at += nbytes
    text = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * max(-len(text) % ALIGNMENT, size - LENGTH_SIZE - len(text))
    return len(text).to_bytes(LENGTH_SIZE, "little") + text

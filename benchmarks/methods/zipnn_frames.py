"""ZipNN: byte groups of floats under Huffman codes."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from zipnn import ZipNN

from benchmarks.methods import Method

PACKAGES: Final = ("zipnn",)
_threads = 1


def set_threads(count: int) -> None:
    global _threads  # noqa: PLW0603 - told to each new ZipNN
    _threads = count


def _tool() -> Any:
    return ZipNN(input_format="byte", bytearray_dtype="float16", threads=_threads)


def encode(block: Any) -> Any:
    # It may reorder the bytes it is given, so it gets its own.
    return _tool().compress(bytearray(block.reshape(-1).view(np.uint8)))


def decode(encoded: Any) -> Any:
    return np.frombuffer(_tool().decompress(encoded), np.float16)


def methods(_heads: int) -> list[Method]:
    return [Method("zipnn", encode, decode)]

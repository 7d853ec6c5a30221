"""zstd on the bytes as they are, and on the two byte planes of halves."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks.methods import Method

PACKAGES: Final = ("zstandard",)
_local = threading.local()


def _coder(level: int) -> zstandard.ZstdCompressor:
    coders: dict[int, zstandard.ZstdCompressor] = _local.__dict__.setdefault("coders", {})
    if level not in coders:
        coders[level] = zstandard.ZstdCompressor(level=level)
    return coders[level]


def _decoder() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decoder"):
        _local.decoder = zstandard.ZstdDecompressor()
    decoder: zstandard.ZstdDecompressor = _local.decoder
    return decoder


def whole(level: int, block: NDArray[np.float16]) -> bytes:
    data: Any = block.reshape(-1).view(np.uint8)
    return _coder(level).compress(data)


def from_whole(frame: bytes) -> NDArray[np.float16]:
    return np.frombuffer(_decoder().decompress(frame), np.float16)


def planes(level: int, block: NDArray[np.float16]) -> list[bytes]:
    pairs: NDArray[Any] = block.reshape(-1).view(np.uint8).reshape(-1, 2)
    data: list[Any] = [np.ascontiguousarray(pairs[:, at]) for at in (0, 1)]
    return [_coder(level).compress(plane) for plane in data]


def from_planes(frames: list[bytes]) -> NDArray[np.float16]:
    low, high = (np.frombuffer(_decoder().decompress(frame), np.uint8) for frame in frames)
    pairs = np.empty((len(low), 2), np.uint8)
    pairs[:, 0], pairs[:, 1] = low, high
    return pairs.reshape(-1).view(np.float16)


def methods(_heads: int) -> list[Method]:
    return [
        *(Method(f"zstd -{level}", partial(whole, level), from_whole) for level in (1, 3)),
        *(
            Method(f"byte planes, zstd -{level}", partial(planes, level), from_planes)
            for level in (1, 3)
        ),
    ]

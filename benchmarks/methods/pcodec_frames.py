"""pcodec: numbers by their latent bits, binned and entropy coded."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from pcodec import ChunkConfig, standalone

from benchmarks.methods import Method

PACKAGES: Final = ("pcodec",)


def encode(level: int, block: Any) -> bytes:
    done: bytes = standalone.simple_compress(
        block.reshape(-1), ChunkConfig(compression_level=level)
    )
    return done


def decode(encoded: bytes) -> Any:
    return standalone.simple_decompress(encoded)


def methods(_heads: int) -> list[Method]:
    return [Method(f"pcodec {level}", partial(encode, level), decode) for level in (4, 8)]

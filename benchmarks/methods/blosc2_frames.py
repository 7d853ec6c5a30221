"""blosc2: shuffled bytes or bits under zstd or LZ4."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import blosc2
import numpy as np

from benchmarks.methods import Method

PACKAGES: Final = ("blosc2",)
_threads = 1


def set_threads(count: int) -> None:
    global _threads  # noqa: PLW0603 - as blosc2 itself keeps it
    _threads = count
    blosc2.set_nthreads(count)


def encode(codec: blosc2.Codec, bits: bool, level: int, block: Any) -> Any:
    way = blosc2.Filter.BITSHUFFLE if bits else blosc2.Filter.SHUFFLE
    return blosc2.compress2(
        block.reshape(-1),
        typesize=2,
        codec=codec,
        clevel=level,
        filters=[way],
        filters_meta=[0],
        nthreads=_threads,
    )


def decode(encoded: Any) -> Any:
    return np.frombuffer(blosc2.decompress2(encoded, nthreads=_threads), np.float16)


def methods(_heads: int) -> list[Method]:
    zstd, lz4 = blosc2.Codec.ZSTD, blosc2.Codec.LZ4
    return [
        Method("blosc2 shuffle zstd 1", partial(encode, zstd, False, 1), decode),
        Method("blosc2 shuffle zstd 5", partial(encode, zstd, False, 5), decode),
        Method("blosc2 bitshuffle zstd 5", partial(encode, zstd, True, 5), decode),
        Method("blosc2 bitshuffle lz4 5", partial(encode, lz4, True, 5), decode),
        Method("blosc2 shuffle lz4 5", partial(encode, lz4, False, 5), decode),
    ]

"""lossless_sizes: what lossless makes of captures, next to a bound and to zstd alone.

    python -m benchmarks.lossless_sizes FILE...

Pages of 256 tokens, each plane under zstd at levels 1 to 3, stored where that is not smaller.
The bound is the entropy of exponents given layer, role, head and channel, plus one sign bit and
all mantissa bits; zstd -19 gets the tensors' own bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import zstandard
from numpy.typing import NDArray

from benchmarks import tables
from benchmarks.pages import spec_of
from kvq_cli.codecs.lossless import Lossless
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page
from kvq_cli.planes import pack

TOKENS: Final = 256


def tensors(path: Path) -> Iterator[tuple[DType, NDArray[Any]]]:
    """Key and value blocks of a capture, (H, T, D) each; queries and the rest are left out."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    for name, entry in header.items():
        if name == "__metadata__" or entry["dtype"] not in list(DType) or "query" in name:
            continue
        first, last = entry["data_offsets"]
        dtype = DType(entry["dtype"])
        bits = np.frombuffer(data[start + first : start + last], dtype.bits)
        yield from ((dtype, block) for block in bits.reshape(-1, *entry["shape"][-3:]))


def bound(dtype: DType, bits: NDArray[Any]) -> float:
    """Bytes of sign, mantissa and the entropy of the exponent, given head and channel."""
    heads, tokens, channels = bits.shape
    mantissa = {DType.F16: 10, DType.BF16: 7, DType.F32: 23}[dtype]
    exponents = (bits >> mantissa & (0x1F if dtype is DType.F16 else 0xFF)).astype(np.int64)
    place = np.arange(heads * channels).reshape(heads, 1, channels) * 256 + exponents
    counts = np.bincount(place.ravel(), minlength=heads * channels * 256).astype(float)
    entropy = bits.size * np.log2(tokens) - float((counts * np.log2(np.maximum(counts, 1))).sum())
    return float(entropy + bits.size * (1 + mantissa)) / 8


def sizes(path: Path) -> dict[str, Any]:
    """What a capture takes, page by page of 256 tokens."""
    blocks = list(tensors(path))
    scratch, codec = Scratch(), Lossless()
    totals = dict.fromkeys((1, 2, 3), 0)
    for dtype, block in blocks:
        for start in range(0, block.shape[1], TOKENS):
            bits = np.ascontiguousarray(block[:, start : start + TOKENS])
            spec = spec_of(bits, dtype)
            for plane in pack(codec.layout(spec), codec.encode(Page(spec, bits), scratch)):
                for level in totals:
                    coded = zstandard.ZstdCompressor(level=level).compress(plane)
                    totals[level] += min(len(plane), len(coded))
    limit = sum(bound(dtype, block) for dtype, block in blocks)
    source = sum(block.nbytes for _, block in blocks)
    best = zstandard.ZstdCompressor(level=19)
    plain = len(best.compress(b"".join(block.tobytes() for _, block in blocks)))
    over = {f"over_bound_{level}": round(total / limit - 1, 4) for level, total in totals.items()}
    ratio = {"ratio": round(source / totals[1], 4), "bound_ratio": round(source / limit, 4)}
    return {"file": path.name, **ratio, **over, "zstd_19_ratio": round(source / plain, 4)}


if __name__ == "__main__":
    print(tables.table([sizes(Path(name)) for name in sys.argv[1:]]))

"""bench_codecs: how fast codecs are, next to a cast and a copy in the same run.

    python tools/bench_codecs.py [--json] [--codec NAME]... [--seconds S] [--lossless FILE...]

One thread, pages of 8 heads and 256 tokens. A is NumPy's cast of the same number of F16
elements to float32. Everything is run in turn, many times, and the least time of each is
shown: other work on the machine can only add. --lossless sizes real captures instead: the
codec's planes under zstd at levels 1 to 3, stored where that is not smaller, against the
entropy of exponents given their channel, plus sign and mantissa, and against zstd -19 of the
tensors' own bytes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import zstandard
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, page_of
from kvq_cli.codecs.lossless import Lossless
from kvq_cli.codecs.registry import CODECS
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import pack

HEADS, TOKENS = 8, 256


def page(values: NDArray[np.float16], dtype: DType) -> Page:
    spec = PageSpec(HEADS, TOKENS, values.shape[2], dtype)
    if dtype is DType.F16:
        return Page(spec, values.view(np.uint16))
    words = values.astype(np.float32).view(np.uint32)
    return Page(spec, words if dtype is DType.F32 else (words >> 16).astype(np.uint16))


def instances(chosen: list[str]) -> Iterator[Codec]:
    """Defaults, and for each parameter its other stated values."""
    for kind in CODECS.values():
        if chosen and kind.name not in chosen:
            continue
        yield kind()
        for field in fields(kind):
            for value in get_args(get_type_hints(kind)[field.name]):
                if value != getattr(kind(), field.name):
                    yield kind(**{field.name: value})


def least_times(calls: dict[Any, Callable[[], object]], seconds: float) -> dict[Any, float]:
    """The least time of each call; all are run in turn until the time is up."""
    least = dict.fromkeys(calls, float("inf"))
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            least[name] = min(least[name], time.perf_counter() - start)
    return least


def measure(channels: int, codecs: list[Codec], seconds: float) -> Iterator[dict[str, Any]]:
    values = np.random.default_rng(0).standard_normal((HEADS, TOKENS, channels))
    halves = values.astype(np.float16)
    copy = np.empty_like(halves)
    scratch = Scratch()
    calls: dict[Any, Callable[[], object]] = {
        "A": lambda: halves.astype(np.float32),
        "copy": lambda: np.copyto(copy, halves),
    }
    for codec in codecs:
        for dtype in DType:
            source, into = page(halves, dtype), page_of(page(halves, dtype).spec)
            planes = {name: np.array(at) for name, at in codec.encode(source, scratch).items()}
            key = (codec, dtype)
            calls[*key, "encode"] = lambda c=codec, p=source: c.encode(p, scratch)
            calls[*key, "decode"] = lambda c=codec, n=planes, i=into: c.decode(
                n, i.spec, i, scratch
            )
    least = least_times(calls, seconds)
    for codec in codecs:
        for dtype in DType:
            row: dict[str, Any] = {"codec": repr(codec), "channels": channels, "dtype": dtype.value}
            for way in ("encode", "decode"):
                spent = least[codec, dtype, way]
                row[f"{way}_ns"] = round(spent / halves.size * 1e9, 3)
                row[f"{way}_per_cast"] = round(spent / least["A"], 2)
                row[f"{way}_per_copy"] = round(spent / least["copy"], 1)
            yield {**row, "cast_ns": round(least["A"] / halves.size * 1e9, 3)}


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
    return (entropy + bits.size * (1 + mantissa)) / 8


def sizes(path: Path) -> dict[str, Any]:
    """What a capture takes, page by page of 256 tokens."""
    blocks = list(tensors(path))
    scratch, codec = Scratch(), Lossless()
    totals = dict.fromkeys((1, 2, 3), 0)
    for dtype, block in blocks:
        for start in range(0, block.shape[1], TOKENS):
            bits = np.ascontiguousarray(block[:, start : start + TOKENS])
            spec = PageSpec(*bits.shape, dtype)
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


def table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "nothing to show"
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--codec", action="append", default=[], metavar="NAME")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each number of channels")
    parser.add_argument("--lossless", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.lossless:
        rows = [sizes(path) for path in options.lossless]
    else:
        codecs = list(instances(options.codec))
        rows = [
            row for channels in (64, 128, 256) for row in measure(channels, codecs, options.seconds)
        ]
    print(json.dumps(rows, indent=1) if options.json else table(rows))


if __name__ == "__main__":
    main()

"""make_capture: captures of any size by recipe, for benchmarks and limits.

    python tools/make_capture.py OUT [--layers 32] [--heads 8] [--channels 128] [--bytes N]
                                     [--dtype F16|BF16|F32] [--sample FILE] [--sparse]

The layout is canonical, `key` and `value` of [1, layers, kv_heads, tokens, head_dim]; tokens
are as many as fit into --bytes. Rows come from a real capture, whose heads are put side by
side where it has too few channels. A run of as many tokens as the sample has is

    x = s·(m + cos a·(u - m) + sin a·(v - m))

with m the channel means, u and v the sample's rows from two starts on, s the layer's scale,
and starts and angle drawn anew for every run. So means, outlier channels, covariances and the
likeness of neighbours are those of real keys and values, and no run repeats another. --sparse
leaves the data out: zeros that take no disk.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from kvq_cli.capture.writer import header_bytes

ROLES: Final = ("key", "value")
WIDTHS: Final = {"F16": 2, "BF16": 2, "F32": 4}  # bytes
SAMPLE: Final = (
    Path(__file__).parents[1] / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"
)
SCALES: Final = (0.25, 0.6, 1.0, 1.7)  # of layers, in turn


def tokens_in(nbytes: int, layers: int, heads: int, channels: int, dtype: str) -> int:
    """The most tokens whose keys and values fit into so many bytes."""
    return max(1, nbytes // (2 * layers * heads * channels * WIDTHS[dtype]))


def sample_rows(path: Path, role: str, layer: int, head: int, channels: int) -> NDArray[Any]:
    """float32 rows (tokens, channels) of one of the sample's heads and, if need be, its next."""
    block = load_file(path)[role][0]  # (L, H, T, D)
    heads = block[layer % len(block)].astype(np.float32)
    count = -(-channels // heads.shape[2])
    chosen = [heads[(head + step) % len(heads)] for step in range(count)]
    return np.concatenate(chosen, axis=1)[:, :channels]


def head_values(
    rows: NDArray[np.float32], tokens: int, scale: float, seed: tuple[int, ...]
) -> NDArray[np.float32]:
    """One head, (tokens, channels), by the recipe above."""
    rng = np.random.default_rng(seed)
    length = len(rows)
    runs = -(-tokens // length)
    mean = rows.mean(axis=0)
    twice = np.concatenate([rows, rows]) - mean
    starts = rng.integers(0, length, (2, runs))
    angles = rng.uniform(0, 2 * np.pi, runs).astype(np.float32)
    steps = np.arange(length)
    values = np.empty((runs, length, rows.shape[1]), np.float32)
    for run in range(runs):
        first, second = twice[starts[0, run] + steps], twice[starts[1, run] + steps]
        np.multiply(first, np.cos(angles[run]), out=values[run])
        values[run] += second * np.sin(angles[run])
    values += mean
    values *= np.float32(scale)
    return values.reshape(-1, rows.shape[1])[:tokens]


def stored(values: NDArray[np.float32], dtype: str) -> bytes:
    """Little-endian elements; BF16 is cut, not rounded, which a benchmark does not notice."""
    if dtype == "F16":
        return values.astype("<f2").tobytes()
    words = values.astype("<f4").view("<u4")
    return words.tobytes() if dtype == "F32" else (words >> 16).astype("<u2").tobytes()


def blocks(
    sample: Path, layers: int, heads: int, tokens: int, channels: int, dtype: str
) -> Iterator[bytes]:
    """The data of `key`, then of `value`, a head at a time."""
    for number, role in enumerate(ROLES):
        for layer in range(layers):
            for head in range(heads):
                rows = sample_rows(sample, role, layer, head, channels)
                scale = SCALES[layer % len(SCALES)]
                seed = (number, layer, head)
                yield stored(head_values(rows, tokens, scale, seed), dtype)


def make(path: Path, options: argparse.Namespace) -> None:
    shape = (options.layers, options.heads, options.channels)
    tokens = tokens_in(options.bytes, *shape, options.dtype)
    whole = (1, options.layers, options.heads, tokens, options.channels)
    tensors = [(role, options.dtype, whole) for role in ROLES]
    header = header_bytes(tensors, {"model": "made by tools/make_capture.py"})
    size = len(header) + sum(int(np.prod(whole)) * WIDTHS[options.dtype] for _ in ROLES)
    with path.open("wb") as file:
        file.write(header)
        if options.sparse:
            file.truncate(size)
        else:
            layers, heads, channels = shape
            file.writelines(blocks(options.sample, layers, heads, tokens, channels, options.dtype))
            file.flush()
            os.fsync(file.fileno())
        if file.seek(0, os.SEEK_END) != size:
            raise AssertionError(f"{path} is not {size} bytes long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--channels", type=int, default=128)
    parser.add_argument("--bytes", type=int, default=1 << 29)
    parser.add_argument("--dtype", choices=tuple(WIDTHS), default="F16")
    parser.add_argument("--sample", type=Path, default=SAMPLE)
    parser.add_argument("--sparse", action="store_true")
    options = parser.parse_args()
    make(options.out, options)


if __name__ == "__main__":
    main()

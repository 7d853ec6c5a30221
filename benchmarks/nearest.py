"""nearest: the search for codewords and the way back, for every built-in codebook.

    python -m benchmarks.nearest [CHANNELS]

Tiles of 128 Ki coordinates, one thread; nanoseconds an element, and in times A. Rounds take all
in turn, and A with each. The figures are medians.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Final

import numpy as np

from benchmarks import machine, rounds
from kvq_cli.codecs.codebooks import SIZES, codebook
from kvq_cli.numerics.keys import index_type
from kvq_cli.numerics.nearest import gather, grid
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import TILE

ROUNDS: Final = 20
TILES: Final = 8
HEAD: Final = "(k, N)       search      A     gather     A    build ms"


def calls(channels: int, block: int, size: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """A search of a tile of the law, and the way back."""
    random = np.random.Generator(np.random.PCG64([channels, block, size]))
    rows = random.standard_normal((TILE // channels, channels))
    rows *= np.sqrt(channels / (rows * rows).sum(axis=1, keepdims=True)) * 2.0 ** grid(block)
    whole = rows.astype(np.float32)[:, : channels // block * block]
    blocks = np.ascontiguousarray(whole).reshape(-1, block)
    book, scratch = codebook(channels, block, size), Scratch()
    indices = np.empty(len(blocks), index_type(size))
    out = np.empty_like(blocks)
    return (
        lambda: book.search(blocks, indices, scratch),
        lambda: gather(indices, book.points, out, scratch),
    )


def once(call: Callable[[], object]) -> float:
    """Several tiles follow each other, as they do in a page."""
    start = time.perf_counter()
    for _ in range(TILES):
        call()
    return (time.perf_counter() - start) / (TILES * TILE) * 1e9


def main() -> None:
    channels = int(sys.argv[1]) if len(sys.argv) > 1 else 128
    machine.steady()
    machine.settle()
    halves = np.ones(TILE, np.float16)
    measured = {}
    for block, size in SIZES:
        start = time.perf_counter()
        codebook(channels, block, size)
        built = time.perf_counter() - start
        measured[block, size] = (calls(channels, block, size), built, [])
    for _ in range(ROUNDS):
        for (search, back), _built, found in measured.values():
            found.append((once(lambda: rounds.cast(halves)), once(search), once(back)))
    print(HEAD)
    for (block, size), (_calls, built, found) in measured.items():
        cast, search, back = ([each[at] for each in found] for at in range(3))
        print(
            f"({block:2}, {size:4})  {median(search):8.2f}  {rounds.ratio(search, cast):5.2f}  "
            f"{median(back):8.2f}  {rounds.ratio(back, cast):5.2f}  {built * 1e3:8.1f}"
        )


if __name__ == "__main__":
    main()

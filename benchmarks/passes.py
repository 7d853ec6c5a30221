"""passes: what NumPy's own operations cost, which is what a codec in NumPy cannot go below.

    python -m benchmarks.passes

Each line is one operation on a tile of 128 Ki elements that stays in the cache, in place where it
can be, in nanoseconds an element and relative to A, the cast of a page from F16 to float32. The
last lines add up the fewest operations that restore F16 from 8-bit and 4-bit codes exactly.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from kvq_cli.numerics.rotation import Hadamard
from kvq_cli.numerics.scratch import Scratch

TILE: Final = 1 << 17
ROUNDS: Final = 60
REPEATS: Final = 20
# Codes to float32, times the scale, then the half's bits: the bit that decides ties, added with
# the rest of half a unit, shifted down, made 16 bits; and the sign of the code put back.
NARROW: Final = ("shift", "and", "add", "add scalar", "shift", "u32 to u16")
SIGN: Final = ("i8 to i16", "u16 and", "u16 or")
RESTORE: Final = {
    "8-bit codes to F16": ("i8 to f32", "multiply rows", *NARROW, *SIGN),
    "4-bit codes to F16": (
        *("u8 to u16", "u16 or", "u16 and"),
        *("i8 to f32", "multiply rows", *NARROW, *SIGN),
    ),
    # Pairs of levels by the byte that holds both codes; the sign is that of the float.
    "4-bit codes of turned rows": (
        *("levels of bytes", "rows turned", "multiply rows", *NARROW),
        *("shift", "and", "add"),
    ),
}


def operations() -> dict[str, Callable[[], Any]]:
    rng = np.random.default_rng(0)
    values = rng.standard_normal(TILE).astype(np.float32)
    rows = values.reshape(-1, 128)
    scales = np.ones((len(rows), 1), np.float32)
    words, halves = values.copy().view(np.uint32), np.zeros(TILE, np.uint16)
    other, codes = words.copy(), np.ones(TILE, np.int8)
    wide = halves.view(np.int16)
    turning, scratch = Hadamard(128, 0), Scratch()
    pairs, packed = values[:512].copy().view(np.float64), rng.integers(0, 256, TILE // 2, np.uint8)
    return {
        "i8 to f32": lambda: np.copyto(values, codes),
        "i8 to i16": lambda: np.copyto(wide, codes),
        "u8 to u16": lambda: np.copyto(halves, codes.view(np.uint8)),
        "multiply rows": lambda: np.multiply(rows, scales, out=rows),
        "shift": lambda: np.right_shift(words, 13, out=other),
        "and": lambda: np.bitwise_and(other, 1, out=other),
        "add": lambda: np.add(other, words, out=other),
        "add scalar": lambda: np.add(other, 0xFFF, out=other),
        "u32 to u16": lambda: np.copyto(halves, other, casting="unsafe"),
        "u16 and": lambda: np.bitwise_and(halves, 0x8000, out=halves),
        "levels of bytes": lambda: np.take(pairs, packed, out=values.view(np.float64), mode="clip"),
        "rows turned": lambda: turning.back(rows, scratch),
        "u16 or": lambda: np.bitwise_or(halves, halves, out=halves),
    }


def least(call: Callable[[], Any], repeats: int) -> float:
    """Seconds of one call, the best of ROUNDS."""
    found = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(repeats):
            call()
        found = min(found, (time.perf_counter() - start) / repeats)
    return found


def main() -> None:
    page = np.random.default_rng(0).standard_normal(8 * 256 * 128).astype(np.float16)
    cast = least(lambda: page.astype(np.float32), 1) / page.size * 1e9
    print(f"{'A: F16 to float32':24}{cast:8.3f} ns{1:8.2f} A")
    spent = {name: least(call, REPEATS) / TILE * 1e9 for name, call in operations().items()}
    for name, each in spent.items():
        print(f"{name:24}{each:8.3f} ns{each / cast:8.2f} A")
    for name, parts in RESTORE.items():
        total = sum(spent[part] for part in parts)
        print(f"{name:24}{total:8.3f} ns{total / cast:8.2f} A, in {len(parts)} operations")


if __name__ == "__main__":
    main()

"""tiles: the blocks of a page that fit a core's cache, the only loop of a codec.

A tile holds whole tokens of one or more heads. Elements are treated alike in every tile, so
no result depends on how a page is cut. Codecs that look along tokens take whole heads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from numpy.typing import NDArray

# Elements: 512 KiB of float32, half of a usual L2 cache. In smaller tiles the cost of calling
# NumPy outweighs what the cache gives back: 32 Ki elements are half as fast again.
TILE: Final = 1 << 17

Tile: TypeAlias = tuple[slice, slice]


def tiles(shape: tuple[int, int, int], *, whole: bool = False, size: int = TILE) -> Iterator[Tile]:
    """Heads and tokens of each tile of a page of this shape, (H, T, D)."""
    heads, tokens, channels = shape
    together = max(1, size // max(1, tokens * channels))
    if together > 1 or whole:
        for head in range(0, heads, together):
            yield slice(head, min(head + together, heads)), slice(0, tokens)
        return
    step = max(1, size // max(1, channels))
    for head in range(heads):
        for start in range(0, tokens, step):
            yield slice(head, head + 1), slice(start, min(start + step, tokens))


def part(array: NDArray[Any], tile: Tile) -> NDArray[Any]:
    """What of `array` meets the tile; an axis of length 1 serves every head or token."""
    heads, tokens = tile
    return array[
        heads if array.shape[0] > 1 else slice(None), tokens if array.shape[1] > 1 else slice(None)
    ]

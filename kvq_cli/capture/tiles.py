"""tiles: rows whose tokens or channels lie apart in the file, many in one read or write.

Spec: formats/capture.md, section "Slabs".

A tile spans the rows of some heads and tokens, and what lies between them. What it takes from
a file is picked out of it; what it brings is put into what is there. Heads are taken together
where a token's lie close to each other, and tokens as long as they make a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.sink import Sink
from kvq_cli.capture.source import Source

if TYPE_CHECKING:
    from kvq_cli.capture.slab import Block, Slab

TILE: Final = 1 << 20
# Reading this much too much costs about as much as another system call.
GAP: Final = 16 << 10


class Tile(NamedTuple):
    """Bytes of the file, and which heads, tokens and channels of the block are in them."""

    at: int
    size: int
    heads: slice
    tokens: slice
    channels: slice


def read_tiles(source: Source, block: Block) -> None:
    for tile in _tiles(block):
        data = bytearray(tile.size)
        source.read_into(tile.at, data)
        places, out = _places(block, tile, data), block.rows[tile.heads, tile.tokens]
        for at, head in enumerate(_own(block, tile)):
            np.copyto(out[at, :, tile.channels], places[head])


def write_tiles(sink: Sink, block: Block) -> None:
    for tile in _tiles(block):
        with sink.changed(tile.at, tile.size) as data:
            places, rows = _places(block, tile, data), block.rows[tile.heads, tile.tokens]
            for at, head in enumerate(_own(block, tile)):
                np.copyto(places[head], rows[at, :, tile.channels])


def _own(block: Block, tile: Tile) -> list[int]:
    """The tile's heads, counted from its first one."""
    chosen = block.heads[tile.heads]
    return [head - chosen[0] for head in chosen]


def _places(block: Block, tile: Tile, data: bytearray | memoryview) -> NDArray[Any]:
    """The tile's rows where they lie, (heads from the first to the last, tokens, channels)."""
    slab, heads = block.slab, _own(block, tile)
    shape = (heads[-1] + 1, *(each.stop - each.start for each in (tile.tokens, tile.channels)))
    strides = (slab.head_stride, slab.token_stride, slab.channel_stride)
    return np.ndarray(shape, slab.dtype.bits, data, strides=strides)


def _tiles(block: Block) -> Iterator[Tile]:
    slab, heads = block.slab, block.heads
    for first, last in _groups(slab, heads):
        apart = (heads[last - 1] - heads[first]) * slab.head_stride
        for channels in _channels(slab, block.stop - block.start):
            count = channels.stop - channels.start
            span = apart + (count - 1) * slab.channel_stride + slab.dtype.size
            for start, stop in _tokens(block, span):
                at = slab.at(heads[first], start) + channels.start * slab.channel_stride
                size = (stop - start - 1) * slab.token_stride + span
                tokens = slice(start - block.start, stop - block.start)
                yield Tile(at, size, slice(first, last), tokens, channels)


def _groups(slab: Slab, heads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of `heads` to take together: all, if a token's heads lie close to each other."""
    ascending = all(head < following for head, following in pairwise(heads))
    span = (heads[-1] - heads[0]) * slab.head_stride + slab.row_size
    if ascending and 0 < slab.head_stride < slab.token_stride and span <= TILE:
        yield 0, len(heads)
    else:
        yield from ((at, at + 1) for at in range(len(heads)))


def _channels(slab: Slab, tokens: int) -> Iterator[slice]:
    """All channels, or each alone where what lies between them is not worth reading."""
    gap = slab.channel_stride - min(tokens, slab.block or tokens) * slab.token_stride
    if slab.channel_stride > slab.token_stride and gap > GAP:
        yield from (slice(at, at + 1) for at in range(slab.channels))
    else:
        yield slice(0, slab.channels)


def _tokens(block: Block, span: int) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that make a tile; none crosses the end of a block of the slab."""
    slab, start = block.slab, block.start
    step = 1 if slab.token_stride - span > GAP else max(1, TILE // slab.token_stride)
    while start < block.stop:
        stop = min(start + step, block.stop)
        if slab.block:
            stop = min(stop, start - start % slab.block + slab.block)
        yield start, stop
        start = stop

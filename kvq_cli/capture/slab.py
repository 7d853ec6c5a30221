"""slab: the (heads, tokens, channels) block of one role, layer and batch entry in a file.

Spec: formats/capture.md, section "Slabs".

    byte of (head, token, channel) =
        starts[head] + token * token_stride + channel * channel_stride

Heads and tokens may be strided in any order. Tokens that lie side by side are read and written
in one go for each head, and with other heads and neighbouring pages where nothing lies between
them. Otherwise a tile that spans the gaps is read, and its rows picked out of it. Slabs whose
channels lie apart, or whose tokens lie in blocks, are `turned`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.sink import Sink
from kvq_cli.capture.source import Source
from kvq_cli.capture.tiles import TILE, read_tiles, write_tiles
from kvq_cli.record import record
from kvq_cli.words import DType, Role

FEW: Final = 4 << 10  # bytes of a write that cost less than its system call
MOST_BUFFERS: Final = 512  # of one system call; Linux takes 1,024

Run: TypeAlias = tuple[int, memoryview]  # offset in the file, and bytes that lie there


@record
class Slab:
    """Where one role, layer and batch entry lies; offsets and strides in bytes."""

    role: Role
    batch: int
    layer: int
    tensor: str
    starts: Sequence[int]  # of the first token of each head
    tokens: int
    channels: int
    dtype: DType
    token_stride: int
    channel_stride: int
    block: int = 0  # so many tokens are token_stride apart, then a block begins; 0: all are
    block_stride: int = 0

    @property
    def heads(self) -> int:
        return len(self.starts)

    @property
    def head_stride(self) -> int:
        """From one head to the next; 0 where they lie anywhere."""
        return self.starts.step if isinstance(self.starts, range) else 0

    @property
    def row_size(self) -> int:
        return self.channels * self.dtype.size

    @property
    def turned(self) -> bool:
        return bool(self.block) or self.channel_stride != self.dtype.size

    def at(self, head: int, token: int) -> int:
        """The offset in the file of the first channel of a token."""
        if self.block:
            block, token = divmod(token, self.block)
            return self.starts[head] + block * self.block_stride + token * self.token_stride
        return self.starts[head] + token * self.token_stride


class Block(NamedTuple):
    """Rows of a slab: named heads, a token range, and their bits, (H, T, D) and C-contiguous."""

    slab: Slab
    heads: Sequence[int]
    start: int
    stop: int
    rows: NDArray[Any]


def read_rows(
    source: Source, slab: Slab, heads: Sequence[int], start: int, stop: int, out: NDArray[Any]
) -> None:
    """Fill `out`, (H, T, D) bits and C-contiguous, with the named heads and a token range."""
    read_blocks(source, [Block(slab, heads, start, stop, out)])


def read_blocks(source: Source, blocks: Iterable[Block]) -> None:
    """Fill the rows of every block; what lies side by side in the file is read in one go."""
    for at, buffers in _gathered(blocks, partial(read_tiles, source)):
        source.read_into(at, *buffers)


def write_rows(
    sink: Sink, slab: Slab, heads: Sequence[int], start: int, stop: int, rows: NDArray[Any]
) -> None:
    """The inverse of read_rows: write `rows` where they belong and change no byte between."""
    write_blocks(sink, [Block(slab, heads, start, stop, rows)])


def write_blocks(sink: Sink, blocks: Iterable[Block]) -> None:
    """The inverse of read_blocks."""
    for at, buffers in _gathered(blocks, partial(_write_apart, sink)):
        sink.write(at, *buffers)


def _gathered(
    blocks: Iterable[Block], by_tiles: Callable[[Block], None]
) -> Iterator[tuple[int, list[memoryview]]]:
    """What lies in one piece; a block whose tokens are apart goes by tiles instead."""
    runs: list[Run] = []
    for block in blocks:
        _check(block)
        if block.slab.token_stride == block.slab.row_size and not block.slab.turned:
            runs += _runs(block)
        else:
            by_tiles(block)
    return _side_by_side(runs)


def _write_apart(sink: Sink, block: Block) -> None:
    """Tokens that lie apart; large rows of neighbouring heads directly, others into tiles."""
    slab, heads, start, stop, rows = block
    ranges = list(_adjacent(slab, heads, slab.row_size))
    sizes = [(last - first) * slab.row_size for first, last in ranges]
    whole = sizes == [slab.token_stride]
    if slab.turned or (min(sizes) < FEW and not whole):
        write_tiles(sink, block)
        return
    for (first, last), size in zip(ranges, sizes, strict=True):
        step = max(1, TILE // size) if whole else 1
        for token in range(start, stop, step):
            low, high = token - start, min(token + step, stop) - start
            # (T, H, D), as the file has it.
            tile = np.ascontiguousarray(rows[first:last, low:high].swapaxes(0, 1))
            sink.write(slab.at(heads[first], token), _bytes(tile))


def _check(block: Block) -> None:
    slab, heads, start, stop, rows = block
    shape = (len(heads), stop - start, slab.channels)
    if rows.shape != shape or rows.dtype != slab.dtype.bits or not rows.flags.c_contiguous:
        raise AssertionError(f"rows are {rows.dtype} {rows.shape}, {slab.dtype.bits} {shape} asked")
    inside = all(0 <= head < slab.heads for head in heads)
    if not inside or not 0 <= start < stop <= slab.tokens or not heads:
        raise AssertionError(f"heads {list(heads)} of tokens {start}:{stop} are outside {slab}")


def _runs(block: Block) -> Iterator[Run]:
    """The rows as they lie in the file, where tokens lie side by side."""
    slab, heads, start, stop, rows = block
    data, size = _bytes(rows), (stop - start) * slab.row_size
    for first, last in _adjacent(slab, heads, size):
        yield slab.at(heads[first], start), data[first * size : last * size]


def _side_by_side(runs: list[Run]) -> Iterator[tuple[int, list[memoryview]]]:
    """Runs in the order of the file, those that touch together."""
    begin, end, together = 0, -1, list[memoryview]()
    for at, data in sorted(runs, key=itemgetter(0)):
        if at != end or len(together) == MOST_BUFFERS:
            if together:
                yield begin, together
            begin, end, together = at, at, []
        together.append(data)
        end += len(data)
    if together:
        yield begin, together


def _adjacent(slab: Slab, heads: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Ranges of `heads` whose pieces of `size` bytes follow each other in the file."""
    first = 0
    for at, (head, following) in enumerate(pairwise(heads), start=1):
        if following != head + 1 or slab.starts[following] - slab.starts[head] != size:
            yield first, at
            first = at
    yield first, len(heads)


def _bytes(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data

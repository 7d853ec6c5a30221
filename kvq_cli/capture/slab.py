"""slab: the (heads, tokens, channels) block of one role, layer and batch entry in a file.

Spec: formats/capture.md, section "Slabs".

    byte of (head, token, channel) =
        offset + head * head_stride + token * token_stride + channel * dtype.size

Channels lie side by side; heads and tokens may be strided in any order. Tokens that lie side
by side are read and written in one go for each head, and with other heads and neighbouring
pages where nothing lies between them. Otherwise a tile that spans the gaps is read, and its
rows picked out of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.source import Source, behind
from kvq_cli.errors import FileError
from kvq_cli.record import record
from kvq_cli.words import DType, Role

TILE: Final = 1 << 20
# Reading this much too much costs about as much as another system call.
GAP: Final = 16 << 10
MOST_BUFFERS: Final = 512  # of one system call; Linux takes 1,024

Run: TypeAlias = tuple[int, memoryview]  # offset in the file, and bytes that lie there


@record
class Slab:
    """Where one role, layer and batch entry lies; offset and strides in bytes."""

    role: Role
    batch: int
    layer: int
    tensor: str
    offset: int
    heads: int
    tokens: int
    channels: int
    dtype: DType
    head_stride: int
    token_stride: int

    @property
    def row_size(self) -> int:
        return self.channels * self.dtype.size

    def at(self, head: int, token: int) -> int:
        """The offset in the file of a row of channels."""
        return self.offset + head * self.head_stride + token * self.token_stride


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
    for at, buffers in _gathered(blocks, partial(_read_tiles, source)):
        source.read_into(at, *buffers)


def write_rows(
    fd: int, slab: Slab, heads: Sequence[int], start: int, stop: int, rows: NDArray[Any]
) -> None:
    """The inverse of read_rows: write `rows` where they belong and touch no byte between."""
    write_blocks(fd, [Block(slab, heads, start, stop, rows)])


def write_blocks(fd: int, blocks: Iterable[Block]) -> None:
    """The inverse of read_blocks."""
    for at, buffers in _gathered(blocks, partial(_write_tiles, fd)):
        _write(fd, at, buffers)


def _gathered(
    blocks: Iterable[Block], by_tiles: Callable[[Block], None]
) -> Iterator[tuple[int, list[memoryview]]]:
    """What lies in one piece; a block whose tokens are apart goes by tiles instead."""
    runs: list[Run] = []
    for block in blocks:
        _check(block)
        if block.slab.token_stride == block.slab.row_size:
            runs += _runs(block)
        else:
            by_tiles(block)
    return _side_by_side(runs)


def _read_tiles(source: Source, block: Block) -> None:
    slab, heads, start, stop, out = block
    for first, last in _groups(slab, heads):
        chosen = heads[first:last]
        span = (chosen[-1] - chosen[0]) * slab.head_stride + slab.row_size
        step = _tokens_a_tile(slab, span)
        for token in range(start, stop, step):
            count = min(step, stop - token)
            tile = np.empty((count - 1) * slab.token_stride + span, np.uint8)
            source.read_into(slab.at(chosen[0], token), tile.data)
            rows: NDArray[Any] = np.ndarray(
                (chosen[-1] - chosen[0] + 1, count, slab.channels),
                slab.dtype.bits,
                tile.data,
                strides=(slab.head_stride, slab.token_stride, slab.dtype.size),
            )
            _pick(rows, chosen, out[first:last, token - start : token - start + count])


def _write_tiles(fd: int, block: Block) -> None:
    slab, heads, start, stop, rows = block
    for first, last in _adjacent(slab, heads, slab.row_size):
        size = (last - first) * slab.row_size
        whole = size == slab.token_stride
        step = max(1, TILE // size)
        for token in range(start, stop, step):
            low, high = token - start, min(token + step, stop) - start
            # (T, H, D), as the file has it.
            tile = _bytes(np.ascontiguousarray(rows[first:last, low:high].swapaxes(0, 1)))
            for at in range(0, len(tile), len(tile) if whole else size):
                piece = tile if whole else tile[at : at + size]
                _write(fd, slab.at(heads[first], token + at // size), [piece])


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
        if following != head + 1 or slab.head_stride != size:
            yield first, at
            first = at
    yield first, len(heads)


def _groups(slab: Slab, heads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of `heads` to read together: all, if a token's heads lie close to each other."""
    ascending = all(head < following for head, following in pairwise(heads))
    span = (heads[-1] - heads[0]) * slab.head_stride + slab.row_size
    if ascending and slab.head_stride < slab.token_stride and span <= TILE:
        yield 0, len(heads)
    else:
        yield from ((at, at + 1) for at in range(len(heads)))


def _tokens_a_tile(slab: Slab, span: int) -> int:
    return 1 if slab.token_stride - span > GAP else max(1, TILE // slab.token_stride)


def _pick(rows: NDArray[Any], heads: Sequence[int], out: NDArray[Any]) -> None:
    if len(rows) == len(heads):
        np.copyto(out, rows)
        return
    for at, head in enumerate(heads):
        np.copyto(out[at], rows[head - heads[0]])


def _bytes(rows: NDArray[Any]) -> memoryview:
    return rows.reshape(-1).view(np.uint8).data


def _write(fd: int, offset: int, buffers: Sequence[memoryview]) -> None:
    left = sum(len(data) for data in buffers)
    while left:
        try:
            count = os.pwritev(fd, buffers, offset)
        except OSError as error:
            raise FileError("E601", f"write at byte {offset}: {error.strerror}") from error
        buffers = behind(buffers, count)
        offset, left = offset + count, left - count

"""packed: rows in blocks of tokens within which tokens or channels are split once more.

Spec: formats/capture.md, sections "Bindings" and "Slabs".

    block := the elements of one role, in an order of H, t, u, D, d behind T and R

No stride leads from one token or channel of such a block to the next. A block is small: it is
read whole and turned into rows, or rows are put into what is there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.sink import Sink
from kvq_cli.capture.source import Source

if TYPE_CHECKING:
    from kvq_cli.capture.slab import Block, Slab

LETTERS: Final = "HtuDd"  # heads, tokens, channels


class Piece(NamedTuple):
    """A block of the file, which of its tokens are meant, and which of the rows these are."""

    at: int
    inside: slice
    rows: slice


def read_packed(source: Source, block: Block) -> None:
    for piece in _pieces(block):
        data = bytearray(_size(block.slab))
        source.read_into(piece.at, data)
        block.rows[:, piece.rows] = _rows(block.slab, data)[list(block.heads), piece.inside]


def write_packed(sink: Sink, block: Block) -> None:
    for piece in _pieces(block):
        with sink.changed(piece.at, _size(block.slab)) as data:
            rows = _rows(block.slab, data)
            rows[list(block.heads), piece.inside] = block.rows[:, piece.rows]
            places = _places(block.slab, data)
            places[...] = rows.reshape(places.shape)


def _pieces(block: Block) -> Iterator[Piece]:
    slab, start = block.slab, block.start
    while start < block.stop:
        number, first = divmod(start, slab.block)
        stop = min(block.stop, (number + 1) * slab.block)
        at = slab.starts[0] + number * slab.block_stride
        rows = slice(start - block.start, stop - block.start)
        yield Piece(at, slice(first, first + stop - start), rows)
        start = stop


def _size(slab: Slab) -> int:
    return math.prod(length for _, length in slab.inner) * slab.dtype.size


def _rows(slab: Slab, data: bytearray | memoryview) -> NDArray[Any]:
    """The rows of a block, (heads, tokens, channels), in memory of their own."""
    return _places(slab, data).copy().reshape(slab.heads, slab.block, slab.channels)


def _places(slab: Slab, data: bytearray | memoryview) -> NDArray[Any]:
    """The elements of a block where they lie, their axes as in LETTERS."""
    order = [letter for letter, _ in slab.inner]
    missing = [letter for letter in LETTERS if letter not in order]
    shape = [length for _, length in slab.inner] + [1 for _ in missing]
    view = np.ndarray(shape, slab.dtype.bits, data)
    return view.transpose([[*order, *missing].index(letter) for letter in LETTERS])

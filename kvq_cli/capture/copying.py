"""copying: rows of one slab to another, a piece at a time.

Spec: formats/capture.md, section "Slabs".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import Slab, read_rows, write_rows
from kvq_cli.capture.source import Source

PIECE: Final = 1 << 22  # bytes that are copied at a time


def copy_rows(
    source: Source, old: Slab, tokens: tuple[int, int], sink: Sink, new: Slab, at: int
) -> None:
    """A token range of all heads, to the tokens of another slab from `at` on."""
    step = max(1, PIECE // (old.heads * old.row_size))
    heads, (start, stop) = range(old.heads), tokens
    for first in range(start, stop, step):
        last = min(first + step, stop)
        rows = np.empty((old.heads, last - first, old.channels), old.dtype.bits)
        read_rows(source, old, heads, first, last, rows)
        write_rows(sink, new, heads, at + first - start, at + last - start, rows)

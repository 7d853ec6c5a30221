"""restore: rows and tensors of a container go where the target file wants them.

Whole files are audited on the way, from a file or a pipe: the output stands only if every
digest and both roots held. Slices of a file go by the index and read the pages they need.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from kvq_cli.capture.header import Header
from kvq_cli.capture.slab import write_rows
from kvq_cli.container import chunk
from kvq_cli.container.index import PageEntry
from kvq_cli.container.reader import Reader
from kvq_cli.digest import Buffer
from kvq_cli.errors import DigestError
from kvq_cli.steps.audited import BATCH, Visitor
from kvq_cli.steps.pages import OpenedPage, OpenedTensor, PageOpener
from kvq_cli.steps.select import Selection, inside
from kvq_cli.steps.target import Target
from kvq_cli.steps.work import in_batches, in_order
from kvq_cli.words import DType, PageKey


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a page that is wanted: places in the page, and places in the target."""

    heads: Sequence[int]
    tokens: Sequence[int]
    target_heads: Sequence[int]
    start: int
    stop: int


class Placer(Visitor):
    """Writes what is wanted into the target; page and tensor may be called by many threads."""

    def __init__(
        self,
        fd: int,
        opener: PageOpener,
        target: Target,
        selection: Selection,
        dtype: DType | None,
    ) -> None:
        self._fd = fd
        self._opener = opener
        self._target = target
        self._dtype = dtype
        self._wanted = {
            layer: (selection.heads(part.kv_heads), selection.tokens(part.tokens))
            for part in opener.manifest.parts
            for span in part.layers
            for layer in range(*span)
            if any((role, 0, layer) in target.slabs for role in part.roles)
        }

    def cut(self, key: PageKey) -> Cut | None:
        """What of this page is wanted; None if nothing is."""
        if (key.role, key.batch, key.layer) not in self._target.slabs:
            return None
        wanted_heads, wanted_tokens = self._wanted[key.layer]
        heads = self._opener.manifest.head_sets[key.head_set]
        places = [at for at, head in enumerate(heads) if head in wanted_heads]
        start, stop = inside(wanted_tokens, key.start, key.stop)
        if not places or start == stop:
            return None
        tokens: Sequence[int]
        if isinstance(wanted_tokens, range):
            tokens = range(start - key.start, stop - key.start)
        else:
            tokens = [token - key.start for token in wanted_tokens[start:stop]]
        targets = [wanted_heads.index(heads[at]) for at in places]
        return Cut(places, tokens, targets, start, stop)

    def page(self, page: OpenedPage) -> Any:
        key = page.record.key
        cut = self.cut(key)
        if cut is not None:
            slab = self._target.slabs[key.role, key.batch, key.layer]
            rows = self._opener.rows(page, cut.heads, cut.tokens, self._dtype)
            write_rows(self._fd, slab, cut.target_heads, cut.start, cut.stop, rows)

    def tensor(self, piece: OpenedTensor) -> Any:
        offset = self._target.tensors.get(piece.tensor)
        if offset is not None:
            write_at(self._fd, offset + piece.at, piece.data)


def restore_by_index(reader: Reader, opener: PageOpener, pool: Executor, placer: Placer) -> None:
    """Read the pages that hold wanted rows, and no other."""

    def place(entries: list[PageEntry]) -> None:
        for entry in entries:
            placer.page(page_of(reader, opener, entry))

    wanted = (entry for entry in reader.entries() if placer.cut(entry.record.key) is not None)
    for _ in in_order(pool, place, in_batches(wanted, lambda entry: entry.stored, BATCH)):
        pass


def page_of(reader: Reader, opener: PageOpener, entry: PageEntry) -> OpenedPage:
    """The page that the index describes; DigestError if another one lies there."""
    page = opener.page(reader.page(entry))
    if page.record != entry.record or page.packed_digest != entry.packed_digest:
        raise DigestError("page is not the one that the index describes", entry.offset)
    return page


def write_at(fd: int, offset: int, buffer: Buffer) -> None:
    view = memoryview(buffer)
    while view:
        count = os.pwrite(fd, view, offset)
        offset, view = offset + count, view[count:]


def head_of(reader: Reader, opener: PageOpener) -> Header:
    """The source file's header, without reading further."""
    first = reader.chunk_at(reader.first_chunk)
    if first.header.type != chunk.HEAD:
        raise DigestError("the first chunk is not HEAD", reader.first_chunk)
    return opener.head(first)

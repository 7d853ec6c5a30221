"""intact: one pass over a damaged container: what of it can be opened, in an order that holds.

Spec: formats/container.md, section "Partial containers".

Two passes over one file take the same chunks: the first tells what is lost, the second writes
the rest.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from typing import Final, NamedTuple

from kvq_cli.container import chunk, coded, index
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coded import Coded
from kvq_cli.container.coverage import Coverage
from kvq_cli.container.partial import Partial
from kvq_cli.container.reader import PAGE_RECORD, PIECE_RECORD, SOURCE_RECORD, Chunk, Reader
from kvq_cli.container.records import PageRecord
from kvq_cli.container.salvage import candidates, unpadded
from kvq_cli.digest import plain
from kvq_cli.errors import ContainerError, FileError, KvqError
from kvq_cli.numerics.scratch import Tables
from kvq_cli.planes import raw_bytes
from kvq_cli.steps.audited import BATCH
from kvq_cli.steps.front import checked_tables
from kvq_cli.steps.pages import PageOpener
from kvq_cli.steps.verdict import read_quality
from kvq_cli.steps.work import Progress, in_batches, in_order

FRONT: Final = (chunk.HEAD, chunk.TABL)
STAGES: Final = (chunk.HEAD, chunk.TABL, chunk.TENS, chunk.PAGE)
RECORDS: Final = {
    chunk.HEAD: SOURCE_RECORD,
    chunk.TABL: PIECE_RECORD,
    chunk.TENS: PIECE_RECORD,
    chunk.PAGE: PAGE_RECORD,
}


class Found(NamedTuple):
    """A chunk that holds: what it is of, and what a writer needs of it."""

    header: ChunkHeader
    place: tuple[int, int] = (0, 0)  # number of a file, table or tensor, and offset
    record: PageRecord | None = None
    source: bytes = index.NO_DIGEST  # of a page, where its planes tell it
    coded: Coded | None = None
    payload: bytes = b""  # of what is not coded

    @property
    def packed_digest(self) -> bytes:
        return self.coded.packed_digest if self.coded else b""


class Intact:
    """One pass."""

    def __init__(self, reader: Reader, pool: Executor | None, progress: Progress) -> None:
        self._reader, self._pool, self._progress = reader, pool, progress
        lenient = replace(reader.manifest, partial=reader.manifest.partial or Partial("", None))
        self._opener = PageOpener(reader)
        self._tables = [bytearray() for _ in reader.manifest.tables]
        self._order = _Order(Coverage(lenient))
        self._waiting: list[ChunkHeader] = []  # the first behind the front
        self.lost_tables: tuple[int, ...] = ()

    @property
    def coverage(self) -> Coverage:
        """What the pages cover."""
        return self._order.coverage

    def chunks(self) -> Iterator[Found]:
        """What holds and follows what came before it, in file order."""
        headers = candidates(self._reader)
        for found in chain(self._front(headers), self._behind(headers)):
            self._progress(found.header.offset, self._reader.source.size or 0)
            yield found

    def _front(self, headers: Iterator[ChunkHeader]) -> Iterator[Found]:
        """All before the first piece of a tensor or page, which waits; then tables are there."""
        for header in headers:
            if header.type not in FRONT and not header.ancillary:
                if self._holds(header):
                    self._waiting = [header]
                    break
                continue
            found = self._open(header)
            if found is not None and self._order.takes(found):
                if header.type == chunk.TABL:
                    self._take_table(found)
                yield found
        self._use_tables()

    def _behind(self, headers: Iterator[ChunkHeader]) -> Iterator[Found]:
        jobs = in_batches(chain(self._waiting, headers), _size, BATCH)
        for batch in in_order(self._pool, self._opened, jobs):
            for found in batch:
                if found is not None and self._order.takes(found):
                    yield found

    def _take_table(self, found: Found) -> None:
        number, at = found.place
        if len(self._tables[number]) == at:
            self._tables[number] += self._opener.piece(unpadded(self._reader, found.header)).data

    def _use_tables(self) -> None:
        lost: list[int] = []
        tables: Tables = {}
        stated = zip(self._reader.manifest.tables, self._tables, strict=True)
        for number, (table, data) in enumerate(stated):
            if table.digest in self._reader.manifest.referenced:
                continue
            if len(data) == table.nbytes:
                tables = {**tables, **checked_tables([(table, data)])}
            else:
                lost.append(number)
        self.lost_tables = tuple(lost)
        self._opener.lost = replace(self._opener.lost, tables=self.lost_tables)
        self._opener.use(tables)

    def _holds(self, header: ChunkHeader) -> bool:
        try:
            self._reader.load(unpadded(self._reader, header))
        except ContainerError:
            return False
        return True

    def _opened(self, headers: Sequence[ChunkHeader]) -> list[Found | None]:
        return [self._open(header) for header in headers]

    def _open(self, header: ChunkHeader) -> Found | None:
        try:
            each = unpadded(self._reader, header)
            if header.type in RECORDS:
                return self._coded(each)
            payload = bytes(self._reader.load(each))
            if header.type == chunk.QUAL:
                read_quality(payload, header.offset)
            return Found(header, payload=payload)
        except FileError:
            raise  # what cannot be read now may be whole
        except KvqError:
            return None

    def _coded(self, each: Chunk) -> Found:
        header, opener = each.header, self._opener
        assert each.raw is not None
        payload = each.raw[: header.stored]  # which the opener checks before it looks at it
        record = bytes(payload[: RECORDS[header.type]])
        number, page, source = int.from_bytes(record[:4], "little"), None, index.NO_DIGEST
        place, digest = (number, 0), b""
        if header.type == chunk.HEAD:
            opener.head(each, number)
        elif header.type == chunk.PAGE:
            stack = opener.page(each)
            page, digest = stack.pages[0].record, stack.pages[0].packed_digest
            if stack.kind.codec.lossless:
                source = plain(raw_bytes(opener.all_rows(stack)))
        else:
            piece = opener.piece(each)
            place, digest = (piece.number, piece.at), piece.packed_digest
        planes = coded.read_table(header.type, len(record), payload, header.offset).planes
        stored, data = sum(plane.stored for plane in planes), bytes(payload)
        whole = Coded(header.type, record, data, plain(data), stored, header.packed, digest)
        return Found(header, place, page, source, whole)


class _Order:
    """Takes what may follow what was taken before."""

    def __init__(self, coverage: Coverage) -> None:
        self.coverage = coverage
        self._number = -1
        self._place = (-1, 0, 0)

    def takes(self, found: Found) -> bool:
        header = found.header
        if header.sequence <= self._number:
            return False
        if header.type in STAGES:
            place = (STAGES.index(header.type), *found.place)
            if found.record is not None:
                try:
                    self.coverage.add(found.record)
                except ContainerError:
                    return False
            elif place <= self._place:
                return False
            self._place = place
        else:
            # No HEAD stands behind another chunk.
            self._place = max(self._place, (1, -1, 0))
        self._number = header.sequence
        return True


class Leaves:
    """What the index leaves that hold say of their pages, one leaf at a time."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._leaves: list[ChunkHeader] = []
        self._read: tuple[int, dict[int, tuple[bytes, bytes]]] = (-1, {})

    def add(self, found: Found, waiting: dict[int, bytes]) -> int:
        """Take an index chunk; how many of the pages that wait for it, by number, it lacks.

        No source digest stays lost for want of a leaf that may still come: `waiting` is empty.
        """
        try:
            known = _entries(found.payload, found.header.offset)
        except ContainerError:
            return 0  # the root
        self._leaves.append(found.header)
        told = [_told(known, *each) for each in waiting.items()]
        waiting.clear()
        return told.count(index.NO_DIGEST)

    def source(self, found: Found) -> bytes:
        """The source digest of a page; NO_DIGEST where its leaf is lost."""
        number = found.header.sequence
        at = bisect_left(self._leaves, number, key=attrgetter("sequence"))
        if found.source != index.NO_DIGEST or at == len(self._leaves):
            return found.source
        if self._read[0] != at:
            leaf = self._leaves[at]
            payload = bytes(self._reader.load(unpadded(self._reader, leaf)))
            self._read = at, _entries(payload, leaf.offset)
        return _told(self._read[1], number, found.packed_digest)


def _entries(payload: bytes, offset: int) -> dict[int, tuple[bytes, bytes]]:
    """Packed and source digest of each page of a leaf, by the number of its chunk."""
    _, entries = index.read_leaf(memoryview(payload), offset)
    return {each.sequence: (each.packed_digest, each.source_digest) for each in entries}


def _told(known: dict[int, tuple[bytes, bytes]], number: int, packed: bytes) -> bytes:
    """The source digest of a page; NO_DIGEST where the leaf means another page."""
    held, source = known.get(number, (b"", index.NO_DIGEST))
    return source if held == packed else index.NO_DIGEST


def _size(header: ChunkHeader) -> int:
    return max(header.stored, header.packed)

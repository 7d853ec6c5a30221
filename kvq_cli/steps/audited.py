"""audited: every chunk of a container read once, in file order, and held against the spec.

This is what verify, stats and whole restores have in common: chunks are loaded, checked and
decoded on a pool of threads, while one thread keeps order, coverage, index and both roots.
It works on a pipe as on a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain, groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

from kvq_cli.capture.files import Files
from kvq_cli.container import chunk, index
from kvq_cli.container.audit import Audit
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coverage import Gap
from kvq_cli.container.footer import Footer
from kvq_cli.container.reader import PAGE_RECORD, PIECE_RECORD, Chunk, Reader
from kvq_cli.container.records import PageRecord, read_page_record, read_piece_record
from kvq_cli.errors import ContainerError, KvqError
from kvq_cli.steps.front import load_front
from kvq_cli.steps.pages import OpenedPiece, PageOpener, Stack
from kvq_cli.steps.verdict import Quality, read_quality
from kvq_cli.steps.work import Progress, in_batches, in_order

BATCH: Final = 1 << 22  # packed bytes in one job


class Visitor:
    """What a story does with opened chunks; the first two are called by many threads."""

    def pages(self, stack: Stack) -> Sequence[Any]:
        """Use pages; what is returned for each reaches `took`, in file order."""
        return [None] * len(stack.pages)

    def tensor(self, piece: OpenedPiece) -> Any:
        """Use a piece of a tensor; likewise."""

    def took(self, header: ChunkHeader, found: Any) -> None:
        """The next chunk in file order, on the story's own thread."""

    def leaf(self, payload: memoryview, offset: int) -> None:
        """The index leaf of the pages since the last one; likewise."""

    def quality(self, told: Quality) -> None:
        """What the container says of its quality; likewise."""

    def missing(self, gaps: Sequence[Gap]) -> None:
        """The rows that a partial container lacks; at the end."""


class _Seen(NamedTuple):
    """What the audit needs of a chunk, without its planes."""

    header: ChunkHeader
    payload: bytes | None = None
    record: PageRecord | None = None
    piece: tuple[int, int, int] | None = None
    packed: bytes | None = None
    quality: Quality | None = None
    found: Any = None


def read_all(
    reader: Reader,
    pool: Executor | None,
    begin: Callable[[PageOpener, Files], Visitor],
    progress: Progress,
) -> Footer:
    """Read, check and visit every chunk; the footer, when everything held."""
    opener = PageOpener(reader)
    chunks = reader.walk()
    files, taken = load_front(opener, chunks)
    visitor = begin(opener, files)
    front = [_before_pages(each) for each in taken]

    def opened(batch: list[Chunk]) -> list[_Seen]:
        try:
            return _opened(batch, opener, visitor)
        except KvqError:
            # One after the other, the first chunk that is wrong is the one that is told.
            return [seen for each in batch for seen in _opened([each], opener, visitor)]

    seen = _told(chain(front, _jobs(pool, opened, chunks)), reader, progress)
    return _audit(reader, seen, visitor, content=True)


def _before_pages(each: OpenedPiece | Chunk) -> _Seen:
    """A head, a piece of a table, or an ancillary chunk before it."""
    return _piece_seen(each, None) if isinstance(each, OpenedPiece) else _Seen(each.header)


def _piece_seen(piece: OpenedPiece, found: Any) -> _Seen:
    place = (piece.number, piece.at, len(piece.data))
    return _Seen(piece.header, piece=place, packed=piece.packed_digest, found=found)


def _opened(batch: list[Chunk], opener: PageOpener, visitor: Visitor) -> list[_Seen]:
    """What the chunks are, opened and visited, neighbouring pages together."""
    seen: list[_Seen] = []
    for kind, group in groupby(batch, key=attrgetter("header.type")):
        if kind == chunk.PAGE:
            for stack in opener.stacks(list(group)):
                for page, found in zip(stack.pages, visitor.pages(stack), strict=True):
                    packed = page.packed_digest
                    seen.append(_Seen(page.header, record=page.record, packed=packed, found=found))
        elif kind == chunk.TENS:
            seen += (_piece_seen(each, visitor.tensor(each)) for each in map(opener.piece, group))
        else:
            seen += (_index_or_skipped(opener.reader, each) for each in group)
    return seen


def check_stored(reader: Reader, pool: Executor | None, progress: Progress) -> Footer:
    """Check stored digests, order, index and file_root; decode nothing."""

    def loaded(each: Chunk) -> _Seen:
        header = each.header
        if header.type == chunk.PAGE:
            record = bytes(reader.load(each)[:PAGE_RECORD])
            return _Seen(header, record=read_page_record(record, header.offset + chunk.SIZE))
        if header.type in {chunk.TABL, chunk.TENS}:
            record = bytes(reader.load(each)[:PIECE_RECORD])
            number, at = read_piece_record(record, header.offset + chunk.SIZE)
            return _Seen(header, piece=(number, at, header.packed), packed=b"")
        return _index_or_skipped(reader, each)

    jobs = _jobs(pool, lambda batch: [loaded(each) for each in batch], reader.walk())
    seen = _told(jobs, reader, progress)
    return _audit(reader, seen, Visitor(), content=False)


def _index_or_skipped(reader: Reader, each: Chunk) -> _Seen:
    """The payload of an index chunk, and what was measured; of others that their digest holds."""
    payload = reader.load(each)
    if each.header.type == chunk.QUAL:
        return _Seen(each.header, quality=read_quality(bytes(payload), each.header.offset))
    return _Seen(each.header, payload=bytes(payload) if each.header.type == chunk.INDX else None)


def _audit(reader: Reader, seen: Iterator[_Seen], visitor: Visitor, *, content: bool) -> Footer:
    audit = Audit(reader.manifest, reader.digest)
    for each in seen:
        last = each.header
        _hold(audit, each, visitor)
        visitor.took(each.header, each.found)
    end = reader.footer_after(last)
    audit.finish(end, content=content)
    visitor.missing(audit.gaps)
    return end


def _hold(audit: Audit, seen: _Seen, visitor: Visitor) -> None:
    header = seen.header
    if seen.record is not None:
        audit.page(header, seen.record, seen.packed)
    elif seen.piece is not None and seen.packed is not None:
        audit.piece(header, seen.piece, seen.packed)
    elif header.type == chunk.INDX and seen.payload is not None:
        payload = memoryview(seen.payload)
        if index.kind_of(payload, header.offset) == index.LEAF:
            audit.leaf(header, payload)
            visitor.leaf(payload, header.offset)
        else:
            audit.root(header, payload)
    elif header.type == chunk.HEAD:
        audit.head(header)
    elif header.ancillary:
        audit.ancillary(header)
        if seen.quality is not None:
            visitor.quality(seen.quality)
    else:
        raise ContainerError("E304", f"misplaced {header.type.decode()} chunk", header.offset)


def _jobs(
    pool: Executor | None, function: Callable[[list[Chunk]], list[_Seen]], chunks: Iterator[Chunk]
) -> Iterator[_Seen]:
    """function over several chunks a job, in order."""
    for batch in in_order(pool, function, in_batches(chunks, _packed, BATCH)):
        yield from batch


def _packed(each: Chunk) -> int:
    # Stored bytes may be few and become many.
    return max(each.header.stored, each.header.packed)


def _told(seen: Iterator[_Seen], reader: Reader, progress: Progress) -> Iterator[_Seen]:
    for each in seen:
        yield each
        progress(each.header.offset + each.header.stored, reader.source.size or 0)

"""pages: chunks of a container become checked planes, and planes become rows.

Nothing is decoded before the chunk's digest held, the record fits the header and every
packed length is what the codec's layout says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.files import File
from kvq_cli.capture.folder import MAX_HEAD
from kvq_cli.codecs import Codec
from kvq_cli.container import chunk, coded
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coded import Table
from kvq_cli.container.coverage import Coverage
from kvq_cli.container.interleave import together, width
from kvq_cli.container.partial import Partial
from kvq_cli.container.reader import PAGE_RECORD, PIECE_RECORD, SOURCE_RECORD, Chunk, Reader
from kvq_cli.container.records import (
    PIECE,
    PageRecord,
    pack_source_record,
    read_page_record,
    read_piece_record,
)
from kvq_cli.errors import CodecError, ContainerError, ProfileError
from kvq_cli.numerics.scratch import Tables
from kvq_cli.page import Page
from kvq_cli.planes import Layout, allowed_sizes, cut, cuts_heads, cuts_tokens, unpack
from kvq_cli.record import record
from kvq_cli.steps.places import placed
from kvq_cli.steps.promised import container_codecs, source_file
from kvq_cli.steps.work import Bench
from kvq_cli.words import DType, PageSpec

NOTHING: Final = Partial("", None)  # that is lost
STACK: Final = 1 << 20  # bytes of pages, decoded, up to which one call costs less than several


@record(eq=False)
class Kind:
    """What pages of one codec and spec have in common."""

    codec: Codec
    spec: PageSpec
    layout: Layout
    sizes: tuple[range, ...]  # that the planes may have, packed
    most: int  # pages that are worth decoding together


class OpenedPage(NamedTuple):
    """A page whose digests held, its planes not yet looked at."""

    header: ChunkHeader
    record: PageRecord
    kind: Kind
    table: Table
    packed: Sequence[memoryview]
    packed_digest: bytes


@record
class Stack:
    """Neighbouring pages of one kind, their planes checked and ready to decode.

    The heads of the second page follow those of the first, and so on: `kind` is that of one
    tall page.
    """

    pages: tuple[OpenedPage, ...]
    kind: Kind
    planes: dict[str, NDArray[Any]]

    def heads(self, at: int) -> range:
        """The heads of one of the pages."""
        count = self.pages[at].kind.spec.heads
        return range(at * count, (at + 1) * count)


@record
class OpenedPiece:
    """A piece of a table, or of a tensor that is not stored as pages."""

    header: ChunkHeader
    number: int
    at: int
    data: memoryview
    packed_digest: bytes


class PageOpener:
    """Checks chunks and decodes their planes; safe to call from many threads."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.manifest = reader.manifest
        self.codecs = container_codecs(reader.manifest)
        self.lost = reader.manifest.partial or NOTHING
        self._coverage = Coverage(reader.manifest)
        self._bench = Bench()
        self._missing: set[str] = set()  # digests of tables that lie elsewhere
        self._kinds: dict[tuple[int, PageSpec], Kind] = {}

    def use(self, tables: Tables) -> None:
        """Decode with these, from now on: before the first page is opened."""
        given = self.reader.given
        self._bench = Bench(tables={**given, **tables})
        self._missing = {*self.manifest.referenced} - {*given}

    def stacks(self, chunks: Sequence[Chunk]) -> Iterator[Stack]:
        """The pages of neighbouring PAGE chunks, in order, those of a kind together."""
        payloads = self.reader.load_all(chunks)
        pages = [self._open(each.header, raw) for each, raw in zip(chunks, payloads, strict=True)]
        for kind, group in groupby(pages, key=attrgetter("kind")):
            alike = tuple(group)
            for at in range(0, len(alike), kind.most):
                yield self._stack(alike[at : at + kind.most])

    def check_words(self, stack: Stack) -> None:
        """CodecError E502 where decoding would meet what no encoder writes."""
        stack.kind.codec.check_words(stack.planes, stack.kind.spec, self._bench.scratch)

    def page(self, each: Chunk) -> Stack:
        """A page by itself."""
        return self._stack((self._open(each.header, self.reader.load(each)),))

    def _open(self, header: ChunkHeader, payload: memoryview) -> OpenedPage:
        body = header.offset + chunk.SIZE
        table = coded.read_table(chunk.PAGE, PAGE_RECORD, payload, body)
        record = read_page_record(table.record, body)
        spec = self._coverage.spec(record)
        spec = placed(spec, record.key, self.codecs[record.codec], self.manifest)
        kind = self._kind(record.codec, spec)
        self._check_packed(table, header, kind.sizes)
        packed = coded.decode(table, payload, self._bench.decoder, body)
        digest = coded.packed_digest(chunk.PAGE, table.record, packed)
        return OpenedPage(header, record, kind, table, packed, digest)

    def _stack(self, pages: tuple[OpenedPage, ...]) -> Stack:
        """CodecError unless an encoder can have written such planes."""
        kind, packed = pages[0].kind, pages[0].packed
        if len(pages) > 1:
            tall = replace(kind.spec, heads=len(pages) * kind.spec.heads)
            kind = self._kind(pages[0].record.codec, tall)
            alike = zip(*(page.packed for page in pages), strict=True)
            packed = [memoryview(b"".join(planes)) for planes in alike]
        planes = unpack(kind.layout, packed)
        kind.codec.check(planes, kind.spec)
        return Stack(pages, kind, planes)

    def piece(self, each: Chunk) -> OpenedPiece:
        """A TABL or TENS chunk."""
        kind, payload = each.header.type, self.reader.load(each)
        body = each.header.offset + chunk.SIZE
        table = coded.read_table(kind, PIECE_RECORD, payload, body)
        number, at = read_piece_record(table.record, body)
        whole = self.manifest.tables if kind == chunk.TABL else self.manifest.tensors
        if number >= len(whole) or at >= whole[number].nbytes:
            raise ContainerError("E304", "a piece of what the header does not have", body)
        count = 1 if kind == chunk.TABL else width(self.manifest.tensors[number].dtype)
        size = min(PIECE, whole[number].nbytes - at)
        self._check_packed(table, each.header, coded.exactly([size // count] * count))
        planes = coded.decode(table, payload, self._bench.decoder, body)
        digest = coded.packed_digest(kind, table.record, planes)
        return OpenedPiece(each.header, number, at, together(planes), digest)

    def head(self, each: Chunk, number: int) -> File:
        """What the HEAD chunk of a source file holds; it must list what the manifest lists."""
        payload = self.reader.load(each)
        body = each.header.offset + chunk.SIZE
        table = coded.read_table(chunk.HEAD, SOURCE_RECORD, payload, body)
        if table.record != pack_source_record(number) or each.header.packed > MAX_HEAD:
            raise ContainerError("E304", "source header holds a value outside the spec", body)
        self._check_packed(table, each.header, coded.exactly([each.header.packed]))
        (data,) = coded.decode(table, payload, self._bench.decoder, body)
        return source_file(self.manifest, number, bytes(data))

    def rows(
        self, stack: Stack, heads: Sequence[int], tokens: Sequence[int], dtype: DType | None
    ) -> NDArray[Any]:
        """The bits of chosen heads of the stack and of chosen tokens; alive in scratch."""
        spec, layout = stack.kind.spec, stack.kind.layout
        if self._missing:
            self._refuse_without(stack.kind.codec)
        if not cuts_heads(layout):
            whole = self._whole(stack, dtype or spec.dtype)
            return np.ascontiguousarray(whole[_index(heads)][:, _index(tokens)])
        if not (_is_all(tokens, spec.tokens) or cuts_tokens(layout)):
            whole = self.rows(stack, heads, range(spec.tokens), dtype)
            return np.ascontiguousarray(whole[:, _index(tokens)])
        planes = stack.planes
        if not (_is_all(heads, spec.heads) and _is_all(tokens, spec.tokens)):
            planes = cut(layout, planes, _index(heads), _index(tokens))
            spec = PageSpec(len(heads), len(tokens), spec.channels, spec.dtype)
        target = PageSpec(spec.heads, spec.tokens, spec.channels, dtype or spec.dtype)
        bits = self._bench.scratch.take("rows", target.shape, target.dtype.bits)
        stack.kind.codec.decode(planes, spec, Page(target, bits), self._bench.scratch)
        return bits

    def _refuse_without(self, codec: Codec) -> None:
        """ProfileError E403 where a table of the codec lies in a file that was not given."""
        for table in codec.tables():
            if table.digest in self._missing:
                found = f"container refers to the calibration {self.manifest.calibration_digest}"
                raise ProfileError("E403", f"{found}; give its file with --calibration")

    def _whole(self, stack: Stack, dtype: DType) -> NDArray[Any]:
        """All rows of a page that is not cut; kept, for slices often follow each other."""
        spec, bench = stack.kind.spec, self._bench
        bits = bench.scratch.take("whole", spec.shape, dtype.bits)
        name = stack.pages[0].packed_digest, dtype
        if bench.whole != name:
            bench.whole = None
            into = Page(replace(spec, dtype=dtype), bits)
            stack.kind.codec.decode(stack.planes, spec, into, bench.scratch)
            bench.whole = name
        return bits

    def all_rows(self, stack: Stack, dtype: DType | None = None) -> NDArray[Any]:
        """The bits of every page of the stack, (pages * H, T, D); alive in scratch."""
        spec = stack.kind.spec
        return self.rows(stack, range(spec.heads), range(spec.tokens), dtype)

    def _kind(self, codec: int, spec: PageSpec) -> Kind:
        found = self._kinds.get((codec, spec))
        if found is None:
            layout = self._layout(codec, spec)
            # Codecs treat each head for itself, so pages may be stacked along the heads.
            tall = all(plane.axes.startswith("H") for plane in layout)
            most = max(1, STACK // spec.nbytes) if tall else 1
            found = Kind(self.codecs[codec], spec, layout, allowed_sizes(layout), most)
        if spec.place is not None:
            return found  # there is one page of it
        return self._kinds.setdefault((codec, spec), found)

    def _layout(self, codec: int, spec: PageSpec) -> Layout:
        lost = {self.manifest.tables[number] for number in self.lost.tables}
        if not lost.isdisjoint(self.codecs[codec].tables()):
            raise ContainerError("E304", "page of a codec whose table is lost")
        try:
            return self.codecs[codec].layout(spec)
        except CodecError as error:
            raise ContainerError("E304", f"page not for its codec: {error}") from error

    @staticmethod
    def _check_packed(table: Table, header: ChunkHeader, sizes: Sequence[range]) -> None:
        coded.check_sizes(table, sizes, header.offset + chunk.SIZE)
        if sum(plane.packed for plane in table.planes) != header.packed:
            raise ContainerError("E304", "packed length is not that of the planes", header.offset)


def _is_all(places: Sequence[int], count: int) -> bool:
    everything = range(count)
    return places == everything or (len(places) == count and list(places) == list(everything))


def _index(places: Sequence[int]) -> slice | NDArray[Any]:
    """A slice where places follow each other: it makes views, not copies."""
    run = range(places[0], places[0] + len(places))
    follow = places == run or list(places) == list(run)
    return slice(run.start, run.stop) if follow else np.asarray(places)

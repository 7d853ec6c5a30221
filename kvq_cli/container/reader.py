"""reader: a container opened: header checked, chunks forward, pages by index.

Spec: formats/container.md.

`walk` goes through every chunk in file order and works on a pipe; `entries` and `page` read
the index and single pages of a file. Neither decodes: that is for whoever knows the codecs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Self

from kvq_cli.container import chunk, index, preamble
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.consistency import check_manifest
from kvq_cli.container.coverage import Coverage, Gap
from kvq_cli.container.footer import SIZE as FOOTER_SIZE
from kvq_cli.container.footer import Footer, read_footer
from kvq_cli.container.header import read_manifest
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.source import ByteSource, Forward
from kvq_cli.errors import ContainerError, DigestError, ProfileError
from kvq_cli.record import record

PAGE_RECORD: Final = 32
PIECE_RECORD: Final = 16
SOURCE_RECORD: Final = 8


@record
class Chunk:
    """A chunk on the way: its header, and what follows up to the next one if it was read."""

    header: ChunkHeader
    raw: memoryview | None = None  # None: it lies in the file


class Reader:
    """One container. Opening it reads and checks preamble and header."""

    def __init__(self, source: ByteSource, *, damaged: bool = False) -> None:
        """Of one that may be `damaged`, padding is not looked at."""
        self.source = source
        self.given: Mapping[str, Any] = {}  # tables that lie elsewhere, by digest
        raw = source.read(0, preamble.SIZE)
        start = preamble.read_preamble(raw)
        header = source.read(preamble.SIZE, start.header_length)
        if len(header) < start.header_length:
            raise ContainerError("E302", "file ends inside the header", preamble.SIZE + len(header))
        preamble.check_header(raw, start, header)
        self.digest = start.digest
        self.manifest: Manifest = read_manifest(header, start.alignment, start.features)
        try:
            check_manifest(self.manifest)
        except ProfileError as error:
            raise ContainerError("E304", f"header {error}", preamble.SIZE) from error
        self.header_size = preamble.SIZE + start.header_length
        self.first_chunk = start.first_chunk
        self.alignment = start.alignment
        if not damaged:
            self._check_zero(source.read(self.header_size, self.first_chunk - self.header_size))
        self._forward = Forward(source, self.first_chunk)

    def walk(self) -> Iterator[Chunk]:
        """Every chunk in file order, up to the index root. Sequence numbers are checked."""
        at = self.first_chunk
        for sequence in range(1 << 32):
            header = chunk.read_chunk_header(self._header(at), at)
            if header.sequence != sequence:
                raise ContainerError(
                    "E304", f"chunk number {header.sequence}, {sequence} is next", at
                )
            following = at + chunk.SIZE
            size = self._padded(header)
            raw = None if self.source.seekable else self._forward.take(following, size)
            found = Chunk(header, raw)
            yield found
            if header.type == chunk.INDX and index.kind_of(self.load(found), at) == index.ROOT:
                return
            at = following + size

    def load(self, found: Chunk) -> memoryview:
        """The payload of a chunk; its digest and padding hold."""
        (payload,) = self.load_all([found])
        return payload

    def load_all(self, found: Sequence[Chunk]) -> list[memoryview]:
        """The payloads of chunks that follow each other, read in one go."""
        begin = found[0].header.offset + chunk.SIZE
        last = found[-1].header
        end = last.offset + chunk.SIZE + self._padded(last)
        whole = memoryview(self.source.read(begin, end - begin) if found[0].raw is None else b"")
        return [self._payload(each, whole, begin) for each in found]

    def footer_after(self, root: ChunkHeader) -> Footer:
        """The footer behind the index root, where a forward reader meets it."""
        at = root.offset + chunk.SIZE + self._padded(root)
        raw = bytes(self._forward.take(at, FOOTER_SIZE + 1))
        if len(raw) < FOOTER_SIZE:
            raise ContainerError("E302", "file ends inside the footer", at + len(raw))
        if len(raw) > FOOTER_SIZE:
            raise ContainerError("E304", "data behind the footer", at + FOOTER_SIZE)
        return self._checked(read_footer(raw, at), root)

    def footer(self) -> Footer:
        """The footer of a file, without reading what lies before it."""
        size = self.source.size or 0
        at = size - FOOTER_SIZE
        if at < self.first_chunk:
            raise ContainerError("E302", "file ends before its index", size)
        return read_footer(self.source.read(at, FOOTER_SIZE), at)

    def entries(self) -> Iterator[index.PageEntry]:
        """What the index says of every page, in order; leaf by leaf.

        An index that names pages which the header lacks, or leaves some out, is refused.
        """
        yield from self._covered(Coverage(self.manifest))

    def gaps(self) -> list[Gap]:
        """The rows that a partial container lacks, from its index."""
        coverage = Coverage(self.manifest)
        if self.manifest.partial is not None:
            for _ in self._covered(coverage):
                pass
        return coverage.gaps

    def _covered(self, coverage: Coverage) -> Iterator[index.PageEntry]:
        end = self.footer()
        root = self.chunk_at(end.index_offset)
        if end.chunks != root.header.sequence + 1:
            raise ContainerError("E304", "footer and index differ", end.index_offset)
        if root.header.stored != index.root_size(end.pages):
            raise ContainerError("E304", "footer and index differ in pages", end.index_offset)
        leaves = index.read_root(self.load(root), end.index_offset)
        if end.pages != sum(leaf.count for leaf in leaves):
            raise ContainerError("E304", "footer and index differ in pages", end.index_offset)
        for leaf in leaves:
            node = self.chunk_at(leaf.offset)
            if node.header.digest != leaf.digest or node.header.sequence != leaf.sequence:
                raise DigestError("index leaf is not the one its root names", leaf.offset)
            first, entries = index.read_leaf(self.load(node), leaf.offset)
            if (first, len(entries)) != (leaf.first, leaf.count):
                raise ContainerError("E304", "index leaf and root differ", leaf.offset)
            for entry in entries:
                coverage.add(entry.record)
                yield entry
        coverage.finish()

    def page(self, entry: index.PageEntry) -> Chunk:
        """The page of an index entry."""
        page = self.chunk_at(entry.offset)
        found = (page.header.type, page.header.sequence, page.header.stored, page.header.packed)
        if found != (chunk.PAGE, entry.sequence, entry.stored, entry.packed):
            raise ContainerError("E304", "chunk is not the one the index names", entry.offset)
        return page

    def chunk_at(self, offset: int) -> Chunk:
        """The chunk at an offset that an index or footer gave."""
        if offset < self.first_chunk or offset % self.alignment:
            raise ContainerError("E304", f"no chunk can lie at {offset}", offset)
        return Chunk(chunk.read_chunk_header(self.source.read(offset, chunk.SIZE), offset))

    def _header(self, at: int) -> bytes:
        """A chunk header, on the way through the file."""
        if self.source.seekable:
            return self.source.read(at, chunk.SIZE)
        return bytes(self._forward.take(at, chunk.SIZE))

    def _padded(self, header: ChunkHeader) -> int:
        """Bytes from the end of a chunk header to the next chunk."""
        return preamble.padded(chunk.SIZE + header.stored, self.alignment) - chunk.SIZE

    def _payload(self, found: Chunk, whole: memoryview, begin: int) -> memoryview:
        """The payload of one of the chunks that are in `whole`, which begins at `begin`."""
        header, size = found.header, self._padded(found.header)
        at = header.offset + chunk.SIZE
        raw = whole[at - begin :][:size] if found.raw is None else found.raw
        if len(raw) < size:
            raise ContainerError("E302", "file ends inside a chunk", at + len(raw))
        payload = raw[: header.stored]
        chunk.check_payload(header, self.digest, payload)
        self._check_zero(bytes(raw[header.stored :]))
        return payload

    def _checked(self, end: Footer, root: ChunkHeader) -> Footer:
        if (end.index_offset, end.chunks) != (root.offset, root.sequence + 1):
            raise ContainerError("E304", "footer and index differ", root.offset)
        return end

    @staticmethod
    def _check_zero(padding: bytes) -> None:
        if padding.count(0) != len(padding):
            raise ContainerError("E304", "padding is not zero")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()

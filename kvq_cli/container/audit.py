"""audit: what a reader that sees every chunk must find in the end.

Spec: formats/container.md, sections "Page order and coverage", "Index" and "Footer".

Chunks are fed in file order with what decoding them gave; the audit keeps both roots, holds
pages against the header and the index against the pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from blake3 import blake3

from kvq_cli.container import chunk, index
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coverage import Coverage, Gap
from kvq_cli.container.footer import Footer
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.records import PageRecord, pieces
from kvq_cli.errors import ContainerError, DigestError


class Audit:
    """Order, coverage, index and roots of one container."""

    def __init__(self, manifest: Manifest, header_digest: bytes) -> None:
        self._coverage = Coverage(manifest)
        self._content = blake3(b"kvq/v1/content\0" + manifest.content_digest())
        self._file = blake3(b"kvq/v1/file\0" + header_digest)
        self._pieces = _promised(manifest)
        self._seen: list[tuple[bytes, bytes | None]] = []  # what the index must say
        self._leaves: list[index.LeafEntry] = []
        lost = manifest.partial.files if manifest.partial else ()
        self._heads = manifest.sources - len(lost)  # that are still to come
        self._stage = int(self._heads == 0)  # 0 nothing yet, 1 after the last HEAD, 2 in pages

    def head(self, header: ChunkHeader) -> None:
        self._file.update(header.digest)
        if self._stage != 0:
            raise ContainerError("E304", "a HEAD chunk too many", header.offset)
        self._heads -= 1
        self._stage = int(self._heads == 0)

    def ancillary(self, header: ChunkHeader) -> None:
        self._file.update(header.digest)

    def piece(self, header: ChunkHeader, piece: tuple[int, int, int], packed: bytes) -> None:
        """A TABL or TENS chunk: number, offset and length of the piece, and packed digest."""
        self._file.update(header.digest)
        if self._stage != 1 or (header.type, piece) != next(self._pieces, None):
            name = header.type.decode()
            raise ContainerError("E304", f"a {name} piece that is not the next one", header.offset)
        if header.type == chunk.TENS:
            self._content.update(packed)

    def page(self, header: ChunkHeader, record: PageRecord, packed: bytes | None) -> None:
        """A PAGE chunk.

        A page that was decoded has a packed digest, and fits the header; of any other nothing
        is known yet, and the content root is not checked.
        """
        if self._stage == 1 and next(self._pieces, None) is not None:
            raise ContainerError("E304", "pages begin before all tables and tensors", header.offset)
        if self._stage == 0:
            raise ContainerError("E304", "no HEAD chunk", header.offset)
        self._stage = 2
        self._file.update(header.digest)
        if packed is None:
            self._coverage.add(record)
        else:
            self._coverage.follow(record)
            self._content.update(packed)
        place = (header.offset, header.stored, header.packed, header.sequence)
        self._seen.append((index.page_fields(place, record), packed))

    def leaf(self, header: ChunkHeader, payload: memoryview) -> None:
        """An index leaf must say what the pages since the last one were."""
        self._file.update(header.digest)
        first, count = index.read_leaf_head(payload, header.offset)
        if first + count != self._coverage.pages or count != len(self._seen):
            raise ContainerError("E304", "index leaf counts other pages", header.offset)
        for number, (fields, packed) in enumerate(self._seen):
            found, digest = index.leaf_fields(payload, number)
            if found != fields:
                raise ContainerError("E304", "index leaf describes another page", header.offset)
            if packed is not None and packed != digest:
                raise DigestError("packed digest of a page does not hold", header.offset)
        self._leaves.append(
            index.LeafEntry(
                header.offset,
                header.stored,
                first,
                count,
                header.sequence,
                header.digest,
            )
        )
        self._seen.clear()

    def root(self, header: ChunkHeader, payload: memoryview) -> None:
        self._file.update(header.digest)
        self._coverage.finish()
        if self._seen or index.read_root(payload, header.offset) != self._leaves:
            raise ContainerError("E304", "index root names other leaves", header.offset)
        if self._stage == 0:
            raise ContainerError("E304", "no HEAD chunk", header.offset)
        if self._stage == 1 and next(self._pieces, None) is not None:
            raise ContainerError("E304", "tables or tensors are missing", header.offset)

    @property
    def gaps(self) -> list[Gap]:
        """The rows that are not there, which a partial container may lack."""
        return self._coverage.gaps

    def finish(self, end: Footer, *, content: bool) -> None:
        """Both roots, or file_root alone where packed digests were not computed."""
        if end.pages != self._coverage.pages:
            raise ContainerError("E304", "footer counts other pages", end.file_length)
        if end.file_root != self._file.digest():
            raise DigestError("file_root does not hold", end.file_length)
        if content and end.content_root != self._content.digest():
            raise DigestError("content_root does not hold", end.file_length)


def _promised(manifest: Manifest) -> Iterator[tuple[bytes, tuple[int, int, int]]]:
    """The TABL and TENS chunks a container must hold."""
    tables = pieces(manifest.held)
    tensors = pieces(manifest.carried)
    if manifest.partial is not None:
        lost = {*manifest.partial.tables}, {*manifest.partial.tensors}
        tables = (piece for piece in tables if piece[0] not in lost[0])
        tensors = (piece for piece in tensors if piece[:2] not in lost[1])
    return chain(
        ((chunk.TABL, piece) for piece in tables), ((chunk.TENS, piece) for piece in tensors)
    )

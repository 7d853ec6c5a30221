"""writer: chunks appended front to back, roots and index kept as it goes.

Spec: formats/container.md.

It seeks nowhere and remembers one index leaf, so that a pipe and a file get the same bytes
and memory does not grow with the file. Where the bytes go is the caller's: `write` takes
one or more buffers to append.
"""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from kvq_cli.container import chunk, footer, index, preamble
from kvq_cli.container.coded import Coded
from kvq_cli.container.coverage import Coverage
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.preamble import padded
from kvq_cli.container.records import PageRecord
from kvq_cli.digest import Buffer, plain
from kvq_cli.errors import ContainerError


class Writer:
    """One container, written once."""

    def __init__(self, manifest: Manifest, write: Callable[..., object]) -> None:
        header = manifest.to_bytes()
        start, self._header_digest = preamble.frame_preamble(
            header, manifest.alignment, manifest.features
        )
        self._write = write
        self._alignment = manifest.alignment
        self._coverage = Coverage(manifest)
        self._content = blake3(b"kvq/v1/content\0" + manifest.content_digest())
        self._file = blake3(b"kvq/v1/file\0" + self._header_digest)
        self._entries: list[bytes] = []
        self._leaves: list[index.LeafEntry] = []
        self._sequence = 0
        self.size = 0
        self._put(start, header)

    def append(self, coded: Coded) -> None:
        """A HEAD, TABL or TENS chunk."""
        if coded.type == chunk.TENS:
            self._content.update(coded.packed_digest)
        self._append(coded.type, coded.payload, coded.payload_digest, coded.packed)

    def append_note(self, kind: bytes, payload: bytes) -> None:
        """An ancillary chunk, which content_root does not know."""
        self._append(kind, payload, plain(payload), len(payload))

    def append_page(self, coded: Coded, record: PageRecord, source_digest: bytes) -> None:
        """The next page; the order is checked."""
        self._coverage.add(record)
        self._content.update(coded.packed_digest)
        entry = index.PageEntry(
            offset=self.size,
            stored=len(coded.payload),
            packed=coded.packed,
            record=record,
            sequence=self._sequence,
            packed_digest=coded.packed_digest,
            source_digest=source_digest,
        )
        self._append(coded.type, coded.payload, coded.payload_digest, coded.packed)
        self._entries.append(entry.pack())
        if len(self._entries) == index.LEAF_PAGES:
            self._append_leaf()

    def finish(self) -> footer.Footer:
        """Index root and footer; the container is complete."""
        self._coverage.finish()
        if self._entries:
            self._append_leaf()
        root_at = self.size
        self._append_index(index.frame_root(self._leaves))
        end = footer.Footer(
            index_offset=root_at,
            file_length=self.size + footer.SIZE,
            chunks=self._sequence,
            pages=self._coverage.pages,
            content_root=self._content.digest(),
            file_root=self._file.digest(),
        )
        self._write(footer.frame_footer(end))
        return end

    def _append_leaf(self) -> None:
        at, sequence = self.size, self._sequence
        first = self._coverage.pages - len(self._entries)
        payload = index.frame_leaf(first, self._entries)
        digest = self._append_index(payload)
        count = len(self._entries)
        self._leaves.append(index.LeafEntry(at, len(payload), first, count, sequence, digest))
        self._entries.clear()

    def _append_index(self, payload: bytes) -> bytes:
        return self._append(chunk.INDX, payload, plain(payload), len(payload))

    def _append(self, kind: bytes, payload: bytes, payload_digest: bytes, packed: int) -> bytes:
        if max(len(payload), packed) > chunk.MAX_LENGTH:
            raise ContainerError("E306", f"chunk of {packed} bytes, at most {chunk.MAX_LENGTH}")
        fields = (kind, len(payload), packed, self._sequence)
        header, digest = chunk.frame_chunk(fields, self._header_digest, payload_digest)
        self._put(header, payload)
        self._file.update(digest)
        self._sequence += 1
        return digest

    def _put(self, *buffers: Buffer) -> None:
        """Write, and pad to the alignment."""
        size = self.size + sum(len(buffer) for buffer in buffers)
        self.size = padded(size, self._alignment)
        self._write(*buffers, bytes(self.size - size))

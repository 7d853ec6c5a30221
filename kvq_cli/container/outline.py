"""outline: how long a container is, from the sizes of what it holds.

Spec: formats/container.md; the parts are those of formats/report.md, section "stats".

    chunk           64 | payload, padded to the alignment
    coded payload   record | plane table | planes
    index           a leaf after every 4,096th page and after the last one, then the root

Planes count as they are packed. The limits are those of a writer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from kvq_cli.container import chunk, footer, index, preamble
from kvq_cli.container.coded import COUNT, ENTRY
from kvq_cli.container.manifest import MAX_PAGE, Manifest
from kvq_cli.container.preamble import padded
from kvq_cli.container.records import PAGE_FIELDS, PIECE_FIELDS, SOURCE_FIELDS, pieces
from kvq_cli.errors import ContainerError

MAX_CHUNKS: Final = 1 << 32


class Outline:
    """Adds up chunks that nobody has written."""

    def __init__(self, manifest: Manifest) -> None:
        header = manifest.to_bytes()
        start, _ = preamble.frame_preamble(header, manifest.alignment, manifest.features)
        self._alignment = manifest.alignment
        self._chunks = 0
        self.pages = 0
        self.parts = Counter(header=padded(len(start) + len(header), manifest.alignment))

    def source_header(self, size: int) -> None:
        self._append("source_header", SOURCE_FIELDS.size + _coded([size]))

    def tables(self, sizes: Iterable[int]) -> None:
        for _, _, size in pieces(sizes):
            self._append("tables", PIECE_FIELDS.size + _coded([size]))

    def add_pages(self, count: int, source: int, packed: Sequence[int]) -> None:
        """So many pages of `source` bytes, whose planes have these sizes."""
        if source > MAX_PAGE:
            raise ContainerError("E306", f"page of {source} bytes, at most {MAX_PAGE}")
        planes = count * sum(packed)
        self._append("page_framing", PAGE_FIELDS.size + _coded(packed), count)
        self.parts["page_framing"] -= planes
        self.parts["pages"] += planes
        self.pages += count

    def finish(self) -> None:
        """Index and footer: now the parts sum to the file."""
        full, last = divmod(self.pages, index.LEAF_PAGES)
        leaves = {index.LEAF_PAGES: full, last: int(last > 0)}
        for pages, count in leaves.items():
            self._append("index", index.HEAD.size + pages * index.PAGE_ENTRY.size, count)
        self._append("index", index.HEAD.size + sum(leaves.values()) * index.LEAF_ENTRY.size)
        self.parts["footer"] = footer.SIZE
        if self._chunks > MAX_CHUNKS:
            raise ContainerError("E306", f"{self._chunks} chunks, at most {MAX_CHUNKS}")

    def _append(self, part: str, payload: int, count: int = 1) -> None:
        if payload > chunk.MAX_LENGTH:
            raise ContainerError("E306", f"chunk of {payload} bytes, at most {chunk.MAX_LENGTH}")
        size = chunk.SIZE + payload
        self.parts[part] += count * size
        self.parts["padding"] += count * (padded(size, self._alignment) - size)
        self._chunks += count


def _coded(planes: Sequence[int]) -> int:
    """A plane table and its planes."""
    return COUNT.size + len(planes) * ENTRY.size + sum(planes)

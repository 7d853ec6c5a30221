"""comparison: a container's pages and tensors held against the capture they come from.

Spec: formats/report.md, section "verify".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from kvq_cli.capture import Capture
from kvq_cli.capture.files import Files
from kvq_cli.capture.slab import read_blocks
from kvq_cli.container import chunk
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.index import NO_DIGEST, read_leaf
from kvq_cli.digest import plain
from kvq_cli.errors import DigestError
from kvq_cli.planes import raw_bytes
from kvq_cli.steps.audited import Visitor
from kvq_cli.steps.layered import page_blocks, slabs_of
from kvq_cli.steps.pages import OpenedPage, OpenedPiece, PageOpener, Stack
from kvq_cli.steps.verdict import Quality
from kvq_cli.words import PageKey

MOST: Final = 8  # differences that are named

Broken = dict[str, str]


class Comparison(Visitor):
    """Holds every page's source digest against the bits of a capture.

    Without a capture, lossless pages are their own witness: they decode to the source's bits.
    """

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture
        tensors = capture.files.tensors if capture else ()
        self._tensors = {(tensor.file, tensor.name): tensor for tensor in tensors}
        self._digests: list[bytes | None] = []
        self.broken: list[Broken] = []
        self.told: Quality | None = None

    def begin(self, opener: PageOpener, files: Files) -> Comparison:
        self._opener = opener
        if self._capture is None or opener.lost.files:
            return self
        if _told(files) != _told(self._capture.files):
            self._differs("names, order or metadata of files or tensors are not the capture's")
        return self

    def pages(self, stack: Stack) -> list[bytes | None]:
        self._opener.check_words(stack)
        return self.digests(stack)

    def digests(self, stack: Stack) -> list[bytes | None]:
        """The digest of each page's source bits; empty where the capture lacks such a page."""
        if self._capture is not None:
            return [self._source_digest(self._capture, page) for page in stack.pages]
        if not stack.kind.codec.lossless:
            return [None] * len(stack.pages)
        rows = self._opener.all_rows(stack)
        return [plain(raw_bytes(part)) for part in rows.reshape(len(stack.pages), -1)]

    def _source_digest(self, capture: Capture, page: OpenedPage) -> bytes:
        key, spec = page.record.key, page.kind.spec
        heads = self._opener.manifest.head_sets[key.head_set]
        for layer in key.every_layer:
            slab = capture.slabs.get((key.role, key.batch, layer))
            if slab is None or slab.tokens < key.stop or slab.heads <= heads[-1]:
                return b""
            if (slab.channels, slab.dtype) != (spec.channels, spec.dtype):
                return b""
        return source_digest(capture, heads, key)

    def tensor(self, piece: OpenedPiece) -> str | None:
        if self._capture is None:
            return None
        entry = self._opener.manifest.tensors[piece.number]
        tensor = self._tensors.get((entry.file, entry.name))
        if tensor is not None and piece.at + len(piece.data) <= tensor.stop - tensor.start:
            data = bytearray(len(piece.data))
            self._capture.source.read_into(tensor.start + piece.at, data)
            if data == piece.data:
                return None
        return entry.name

    def took(self, header: ChunkHeader, found: Any) -> None:
        if isinstance(found, str):
            self._differs(f'tensor "{found}" is not the one in the capture')
        elif header.type == chunk.PAGE:
            self._digests.append(found)

    def leaf(self, payload: memoryview, offset: int) -> None:
        digests, self._digests = self._digests, []
        if not any(digest is not None for digest in digests):
            return
        _, entries = read_leaf(payload, offset)
        unknown = NO_DIGEST if self._opener.manifest.partial else None
        for entry, digest in zip(entries, digests, strict=True):
            if digest is not None and entry.source_digest not in (digest, unknown):
                if self._capture is None:
                    raise DigestError("source digest does not hold", entry.offset)
                key = entry.record.key
                heads = self._opener.manifest.head_sets[key.head_set]
                self._differs(
                    f"{key.role.word}, batch {key.batch}, {key.layer_words}, heads {list(heads)}, "
                    f"tokens {key.start}:{key.stop} do not come from this capture"
                )

    def quality(self, told: Quality) -> None:
        self.told = told

    def finish(self) -> None:
        """A capture that holds more than the container is another capture."""
        if self._capture is None:
            return
        parts = self._opener.manifest.parts_by_layer()
        for layer in self._capture.layers:
            part = parts.get(layer.layer)
            shape = (layer.batch, layer.heads, layer.tokens)
            if part is None or (part.batch, part.kv_heads, part.tokens) != shape:
                self._differs(f"layer {layer.layer} of the capture has another shape")

    def _differs(self, message: str) -> None:
        if len(self.broken) < MOST:
            self.broken.append(broken("E805", message))


def source_digest(capture: Capture, heads: Sequence[int], key: PageKey) -> bytes:
    """That of a page's bits, as the index of a container has it."""
    slabs = slabs_of(capture.slabs, key)
    shape = (len(slabs) * len(heads), key.stop - key.start, slabs[0].channels)
    bits = np.empty(shape, slabs[0].dtype.bits)
    read_blocks(capture.source, page_blocks(slabs, heads, key, bits))
    return plain(raw_bytes(bits))


def _told(files: Files) -> list[object]:
    """What files say, however the text of their headers is arranged."""
    return [
        *((each.file, each.name, each.dtype, each.shape) for each in files.tensors),
        *((each.name, each.header.metadata if each.header else each.head) for each in files.files),
    ]


def broken(error_id: str, message: str) -> Broken:
    return {"error_id": error_id, "message": message}

"""index: leaves of at most 4,096 page entries, and the root that names the leaves.

Spec: formats/container.md, section "Index".

    head         kind 4 (0 leaf, 1 root), count 4, first 8, zero 16
    leaf entry   offset 8, stored 8, packed 8, page record 32, sequence 4, zero 4,
                 packed digest 32, source digest 32
    root entry   offset 8, stored 8, first page 8, count 4, sequence 4, chunk digest 32
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

from kvq_cli.container.records import PageRecord, read_page_record
from kvq_cli.errors import ContainerError
from kvq_cli.record import record

HEAD: Final = struct.Struct("<IIQ16s")
PAGE_ENTRY: Final = struct.Struct("<QQQ32sI4s32s32s")
PAGE_FIELDS: Final = struct.Struct("<QQQ32sI4s")  # the same without digests
LEAF_ENTRY: Final = struct.Struct("<QQQII32s")
LEAF: Final = 0
ROOT: Final = 1
LEAF_PAGES: Final = 4096
NO_DIGEST: Final = bytes(32)  # of a source that nobody knows any more, in a partial container


@record
class PageEntry:
    """What the index says of one page."""

    offset: int
    stored: int
    packed: int
    record: PageRecord
    sequence: int
    packed_digest: bytes
    source_digest: bytes

    def pack(self) -> bytes:
        place = (self.offset, self.stored, self.packed, self.sequence)
        return page_fields(place, self.record) + self.packed_digest + self.source_digest


@record
class LeafEntry:
    """What the root says of one leaf."""

    offset: int
    stored: int
    first: int
    count: int
    sequence: int
    digest: bytes


def page_fields(place: tuple[int, int, int, int], record: PageRecord) -> bytes:
    """An entry before its digests; `place` is offset, stored, packed, sequence."""
    offset, stored, packed, sequence = place
    return PAGE_FIELDS.pack(offset, stored, packed, record.pack(), sequence, bytes(4))


def leaf_fields(payload: memoryview, number: int) -> tuple[bytes, bytes]:
    """An entry of a leaf before its digests, and the packed digest."""
    at = HEAD.size + number * PAGE_ENTRY.size
    digest = at + PAGE_FIELDS.size
    return bytes(payload[at:digest]), bytes(payload[digest : digest + 32])


def frame_leaf(first: int, entries: Sequence[bytes]) -> bytes:
    return HEAD.pack(LEAF, len(entries), first, bytes(16)) + b"".join(entries)


def frame_root(leaves: Sequence[LeafEntry]) -> bytes:
    entries = [
        LEAF_ENTRY.pack(
            leaf.offset, leaf.stored, leaf.first, leaf.count, leaf.sequence, leaf.digest
        )
        for leaf in leaves
    ]
    return HEAD.pack(ROOT, len(entries), 0, bytes(16)) + b"".join(entries)


def root_size(pages: int) -> int:
    """Bytes of the root of an index of so many pages."""
    return HEAD.size + -(-pages // LEAF_PAGES) * LEAF_ENTRY.size


def kind_of(payload: memoryview, offset: int) -> int:
    """LEAF or ROOT, for a reader that goes forward."""
    kind = _read_head(payload, offset)[0]
    if kind not in (LEAF, ROOT):
        raise ContainerError("E304", f"index kind {kind} is outside the spec", offset)
    return kind


def read_leaf_head(payload: memoryview, offset: int) -> tuple[int, int]:
    """Number of the first page, and of pages; the entries fill the payload."""
    kind, count, first = _read_head(payload, offset)
    if kind != LEAF or not 0 < count <= LEAF_PAGES or first % LEAF_PAGES:
        raise ContainerError("E304", "index leaf holds a value outside the spec", offset)
    _check_length(payload, count * PAGE_ENTRY.size, offset)
    return first, count


def read_leaf(payload: memoryview, offset: int) -> tuple[int, list[PageEntry]]:
    """Number of the first page, and the entries."""
    first, _ = read_leaf_head(payload, offset)
    entries = []
    for fields in PAGE_ENTRY.iter_unpack(payload[HEAD.size :]):
        at, stored, packed, raw, sequence, zero, packed_digest, source_digest = fields
        if zero != bytes(4):
            raise ContainerError("E304", "index entry holds a value outside the spec", offset)
        record = read_page_record(raw, offset)
        entries.append(
            PageEntry(at, stored, packed, record, sequence, packed_digest, source_digest)
        )
    return first, entries


def read_root(payload: memoryview, offset: int) -> list[LeafEntry]:
    """The leaves, whose page numbers follow on each other."""
    kind, count, first = _read_head(payload, offset)
    if kind != ROOT or first:
        raise ContainerError("E304", "index root holds a value outside the spec", offset)
    _check_length(payload, count * LEAF_ENTRY.size, offset)
    leaves = [LeafEntry(*fields) for fields in LEAF_ENTRY.iter_unpack(payload[HEAD.size :])]
    for number, leaf in enumerate(leaves):
        full = leaf.count == LEAF_PAGES or number == count - 1
        if leaf.first != number * LEAF_PAGES or not full or not 0 < leaf.count <= LEAF_PAGES:
            raise ContainerError("E304", "index root names leaves that do not follow", offset)
    return leaves


def _read_head(payload: memoryview, offset: int) -> tuple[int, int, int]:
    if len(payload) < HEAD.size:
        raise ContainerError("E304", "index is too short", offset)
    kind, count, first, zero = HEAD.unpack_from(payload)
    if zero != bytes(16):
        raise ContainerError("E304", "index head holds a value outside the spec", offset)
    return kind, count, first


def _check_length(payload: memoryview, entries: int, offset: int) -> None:
    if len(payload) != HEAD.size + entries:
        raise ContainerError(
            "E304", f"index of {len(payload)} bytes does not fit its count", offset
        )

"""index: leaves and root, every count at its limit and beyond it."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from kvq_cli.container import index
from kvq_cli.errors import ContainerError

AT = 4096
RECORD = struct.pack("<BBHIIIQII", 1, 0, 2, 0, 4, 1, 6, 7, 8)


def head(kind: int, count: int, first: int = 0, zero: bytes = bytes(16)) -> bytes:
    return struct.pack("<IIQ16s", kind, count, first, zero)


def entry(number: int = 0, record: bytes = RECORD, zero: int = 0) -> bytes:
    place = struct.pack("<QQQ32sII", 64 * number, number + 1, number + 2, record, number + 3, zero)
    return place + bytes([number % 256]) * 32 + bytes([number % 256 ^ 255]) * 32


def leaf(count: int, first: int = 0, **changed: Any) -> memoryview:
    entries = b"".join(entry(number) for number in range(changed.get("entries", count)))
    kind = changed.get("kind", 0)
    zero = changed.get("zero", bytes(16))
    return memoryview(head(kind, count, first, zero) + entries + changed.get("tail", b""))


def refused(read: Any, payload: memoryview) -> None:
    with pytest.raises(ContainerError) as refusal:
        read(payload, AT)
    assert (refusal.value.error_id, refusal.value.offset) == ("E304", AT)


def test_entries_of_a_leaf():
    """Every field comes from its place, and is packed to the same bytes."""
    first, entries = index.read_leaf(leaf(3, 8192), AT)
    assert first == 8192
    for number, found in enumerate(entries):
        place = (found.offset, found.stored, found.packed, found.sequence)
        assert place == (64 * number, number + 1, number + 2, number + 3)
        assert found.record.pack() == RECORD
        assert (found.packed_digest, found.source_digest) == (
            bytes([number]) * 32,
            bytes([number ^ 255]) * 32,
        )
        assert found.pack() == entry(number)
        assert index.leaf_fields(leaf(3), number) == (entry(number)[:64], entry(number)[64:96])
    assert index.frame_leaf(8192, [entry(number) for number in range(3)]) == leaf(3, 8192)


@pytest.mark.parametrize(("count", "first"), [(1, 0), (4096, 0), (2, 4096), (1, 4096 * 9)])
def test_leaves_that_are_read(count, first):
    """One entry, as many as fit, and first pages that are multiples of that."""
    assert index.read_leaf_head(leaf(count, first), AT) == (first, count)
    assert len(index.read_leaf(leaf(count, first), AT)[1]) == count
    assert index.kind_of(leaf(count, first), AT) == index.LEAF


@pytest.mark.parametrize(
    "payload",
    [
        leaf(0),
        leaf(4097),
        leaf(1, 1),
        leaf(1, 4095),
        leaf(1, 4097),
        leaf(1, kind=1),
        leaf(1, kind=2),
        leaf(2, entries=1),
        leaf(1, entries=2),
        leaf(1, tail=b"\0"),
        leaf(1, zero=bytes(15) + b"\1"),
        leaf(1, zero=b"\1" + bytes(15)),
        leaf(1)[:31],
        leaf(0)[:0],
    ],
    ids=range(14),
)
def test_leaves_that_are_refused(payload):
    """Another kind, count, first page, length or zero."""
    refused(index.read_leaf_head, payload)
    refused(index.read_leaf, payload)


@pytest.mark.parametrize(
    "changed", [{"zero": 1}, {"zero": 1 << 31}, {"record": b"\2" + RECORD[1:]}], ids=range(3)
)
def test_entries_that_are_refused(changed):
    """A zero that is none, a role that there is not; the first entry or the last."""
    for entries in ([entry(0), entry(1, **changed)], [entry(0, **changed), entry(1)]):
        refused(index.read_leaf, memoryview(head(0, 2) + b"".join(entries)))


def root(*leaves: tuple[int, int], **changed: Any) -> memoryview:
    """A root of leaves given by first page and count."""
    entries = [
        struct.pack("<QQQII32s", 64 * at, at, first, count, at + 1, bytes([at]) * 32)
        for at, (first, count) in enumerate(leaves)
    ]
    start = head(
        changed.get("kind", 1),
        changed.get("count", len(leaves)),
        changed.get("first", 0),
        changed.get("zero", bytes(16)),
    )
    return memoryview(start + b"".join(entries) + changed.get("tail", b""))


@pytest.mark.parametrize(
    "leaves",
    [
        (),
        ((0, 1),),
        ((0, 4096),),
        ((0, 4096), (4096, 1)),
        ((0, 4096), (4096, 4096), (8192, 4096)),
    ],
)
def test_roots_that_are_read(leaves):
    """None, one, and several leaves, all but the last of them full."""
    found = index.read_root(root(*leaves), AT)
    assert [(each.first, each.count) for each in found] == list(leaves)
    for at, each in enumerate(found):
        rest = (each.offset, each.stored, each.sequence, each.digest)
        assert rest == (64 * at, at, at + 1, bytes([at]) * 32)
    assert index.frame_root(found) == root(*leaves)
    assert index.kind_of(root(*leaves), AT) == index.ROOT


@pytest.mark.parametrize(
    "payload",
    [
        root((0, 0)),
        root((0, 4097)),
        root((1, 1)),
        root((4096, 1)),
        root((0, 4095), (4096, 1)),
        root((0, 4096), (4095, 1)),
        root((0, 4096), (4097, 1)),
        root((0, 4096), (4096, 0)),
        root((0, 4096), (4096, 4097)),
        root((0, 4096), (8192, 1)),
        root((0, 1), kind=0),
        root((0, 1), kind=2),
        root((0, 1), first=1),
        root((0, 1), count=2),
        root((0, 1), count=0),
        root((0, 1), tail=b"\0"),
        root((0, 1), zero=bytes(15) + b"\1"),
        root()[:31],
    ],
    ids=range(18),
)
def test_roots_that_are_refused(payload):
    """Leaves that do not follow each other; another kind, count, first page, length or zero."""
    refused(index.read_root, payload)


@pytest.mark.parametrize(
    ("pages", "size"), [(0, 32), (1, 96), (4096, 96), (4097, 160), (8192, 160), (8193, 224)]
)
def test_the_size_of_a_root(pages, size):
    """A head, and 64 bytes for every 4,096 pages that there are or begin."""
    assert index.root_size(pages) == size


def test_other_kinds():
    """There are leaves and roots, and nothing else."""
    for kind in (2, 3, 1 << 31):
        refused(index.kind_of, memoryview(head(kind, 0)))
    refused(index.kind_of, memoryview(head(0, 0)[:-1]))

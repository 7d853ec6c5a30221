"""reader: a container forward, from a file and from a pipe, and by its index."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kvq_cli.container import chunk, index
from kvq_cli.container.coverage import Gap
from kvq_cli.container.reader import Chunk, Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import ContainerError
from kvq_cli.words import Role
from support.manifests import container_of
from support.surgery import operate, put_together, take_apart

RAW = container_of("raw")
EXTRAS = container_of("extras")
WAYS = ["file", "pipe", "index"]


@contextmanager
def opened(data: bytes, folder: Path, way: str) -> Iterator[Reader]:
    if way == "pipe":
        reader, writer = os.pipe()
        os.write(writer, data)
        os.close(writer)
        source = ByteSource(reader, "-", owned=True)
    else:
        (folder / "container").write_bytes(data)
        source = ByteSource.open(folder / "container")
    with source:
        yield Reader(source)


def read(data: bytes, folder: Path, way: str) -> list[Any]:
    """All chunks with their payloads and the footer; by index, entries and their pages."""
    with opened(data, folder, way) as reader:
        if way == "index":
            pages = [(entry, reader.page(entry)) for entry in reader.entries()]
            return [(entry, page, bytes(reader.load(page))) for entry, page in pages]
        chunks = [(each, bytes(reader.load(each))) for each in reader.walk()]
        return [*chunks, reader.footer_after(chunks[-1][0].header)]


def refusal(data: bytes, folder: Path, way: str) -> tuple[str, int | None] | None:
    try:
        read(data, folder, way)
    except ContainerError as error:
        return error.error_id, error.offset
    return None


@pytest.mark.parametrize("data", [RAW, EXTRAS, container_of("ragged"), container_of("fib-quant")])
def test_three_ways_find_the_same(data, tmp_path):
    """Chunks of a pipe are those of a file, and pages of the index are those on the way."""
    forward, piped = (read(data, tmp_path, way) for way in ("file", "pipe"))
    assert [each[0].header for each in forward[:-1]] == [each[0].header for each in piped[:-1]]
    assert [each[1] for each in forward[:-1]] == [each[1] for each in piped[:-1]]
    assert all(each[0].raw is None for each in forward[:-1])
    assert all(each[0].raw is not None for each in piped[:-1])
    assert forward[-1] == piped[-1]
    pages = [(each.header, data_) for each, data_ in forward[:-1] if each.header.type == chunk.PAGE]
    assert pages == [(page.header, data_) for _, page, data_ in read(data, tmp_path, "index")]
    with opened(data, tmp_path, "file") as reader:
        assert reader.footer() == forward[-1]
        assert reader.digest == data[32:64]
        assert reader.header_size == 64 + int.from_bytes(data[20:24], "little")
        assert (reader.first_chunk, reader.alignment) == (
            -(-reader.header_size // reader.alignment) * reader.alignment,
            1 << data[24],
        )


def test_chunks_in_one_go(tmp_path):
    """Payloads of chunks that follow each other are those that each has by itself."""
    for way in ("file", "pipe"):
        with opened(EXTRAS, tmp_path, way) as reader:
            chunks = list(reader.walk())
            assert [bytes(each) for each in reader.load_all(chunks[1:4])] == [
                bytes(reader.load(each)) for each in chunks[1:4]
            ]


FIRST, PAGE = 2176, 2368  # offsets of the pages of RAW, and of what follows
LEAF, ROOT, FOOTER, END = 2560, 2944, 3136, 3264


def entries(number: str, **members: Any) -> list[dict[str, Any]]:
    return [{"set": f"/chunks/{number}/entries", "to": {"0": members}}]


def sets(pointer: str, value: Any) -> list[dict[str, Any]]:
    return [{"set": pointer, "to": value}]


# What is found on the way through file and pipe, and by the index; None: it is for the audit.
LIES: list[tuple[str, list[dict[str, Any]], Any, Any]] = [
    ("sequence", sets("/chunks/2/sequence", 3), ("E304", PAGE), None),
    ("first sequence", sets("/chunks/0/sequence", 1), ("E304", 1856), None),
    ("chunk digest", sets("/chunks/2/digest", "00" * 32), ("E303", PAGE), ("E303", PAGE)),
    (
        "bound to another file",
        sets("/chunks/2/bound_to", "00" * 32),
        ("E303", PAGE),
        ("E303", PAGE),
    ),
    ("leaf's offset of a page", entries("3", offset=64), None, ("E304", 64)),
    ("offset between chunks", entries("3", offset=PAGE - 1), None, ("E304", PAGE - 1)),
    ("offset of another page", entries("3", offset=PAGE), None, ("E304", PAGE)),
    ("offset behind the end", entries("3", offset=1 << 40), None, ("E302", 1 << 40)),
    ("leaf's stored", entries("3", stored=71), None, ("E304", FIRST)),
    ("leaf's packed", entries("3", packed=7), None, ("E304", FIRST)),
    ("leaf's sequence", entries("3", sequence=9), None, ("E304", FIRST)),
    ("leaf's record", entries("3", record="00" * 31 + "01"), None, ("E304", LEAF)),
    ("root's offset", entries("4", offset=64), None, ("E304", 64)),
    ("root's offset in a page", entries("4", offset=PAGE), None, ("E303", PAGE)),
    ("root's first", entries("4", first=1), None, ("E304", ROOT)),
    ("root's count", entries("4", count=1), None, ("E304", ROOT)),
    ("root's sequence", entries("4", sequence=9), None, ("E303", LEAF)),
    ("root's digest", entries("4", digest="00" * 32), None, ("E303", LEAF)),
    ("leaf's first", sets("/chunks/3/first", 4096), None, ("E304", LEAF)),
    (
        "leaf that is short",
        [*sets("/chunks/3/short", 1), *sets("/footer/pages", 2)],
        None,
        ("E304", LEAF),
    ),
    ("two leaves, one named", [{"drop": "/chunks/3"}], None, ("E304", LEAF)),
    ("footer's root", sets("/footer/root", PAGE), ("E304", ROOT), ("E304", PAGE)),
    ("footer's root in the header", sets("/footer/root", 64), ("E304", ROOT), ("E304", 64)),
    ("footer's root between", sets("/footer/root", ROOT + 32), ("E304", ROOT), ("E304", ROOT + 32)),
    ("footer's chunks", sets("/footer/chunks", 4), ("E304", ROOT), ("E304", ROOT)),
    ("footer's chunks and more", sets("/footer/chunks", 6), ("E304", ROOT), ("E304", ROOT)),
    ("footer's pages", sets("/footer/pages", 1), None, ("E304", ROOT)),
    ("footer's pages and more", sets("/footer/pages", 3), None, ("E304", ROOT)),
    ("footer's CRC", sets("/footer/crc", 0), ("E303", FOOTER), ("E303", FOOTER)),
    (
        "padding of a page",
        sets("/chunks/2/padding", "00" * 55 + "01"),
        ("E304", None),
        ("E304", None),
    ),
    (
        "first of the padding",
        sets("/chunks/2/padding", "01" + "00" * 55),
        ("E304", None),
        ("E304", None),
    ),
    ("padding of the header", sets("/padding", "01"), ("E304", None), ("E304", None)),
    ("a byte behind", [{"append": "00"}], ("E304", END), ("E302", FOOTER + 1)),
    ("a byte less", [{"truncate": -1}], ("E302", END - 1), ("E302", FOOTER - 1)),
    ("no footer", [{"truncate": FOOTER}], ("E302", FOOTER), ("E302", FOOTER - 128)),
    ("ends in the root", [{"truncate": FOOTER - 1}], ("E302", FOOTER - 1), ("E302", 3007)),
    ("ends in a page", [{"truncate": PAGE + 70}], ("E302", PAGE + 70), ("E302", PAGE - 58)),
    ("ends in a chunk header", [{"truncate": PAGE + 63}], ("E302", PAGE + 63), ("E302", PAGE - 65)),
    ("ends in front of a chunk", [{"truncate": PAGE}], ("E302", PAGE), ("E302", PAGE - 128)),
    ("ends behind the header", [{"truncate": 1856}], ("E302", 1856), ("E302", 1856)),
    ("a footer's room behind it", [{"truncate": 1983}], ("E302", 1855 + 128), ("E302", 1983)),
    ("ends in the header", [{"truncate": 1000}], ("E302", 1000), ("E302", 1000)),
    ("ends in the preamble", [{"truncate": 63}], ("E302", 63), ("E302", 63)),
    ("no chunks", sets("/chunks", []), ("E303", 1856), ("E304", 0)),
    ("header digest", sets("/preamble/digest", "00" * 32), ("E303", 32), ("E303", 32)),
]


@pytest.mark.parametrize(
    ("edits", "forward", "indexed"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES]
)
def test_lies(edits, forward, indexed, tmp_path):
    """Each is refused where it stands, by every way that comes by."""
    data = operate(RAW, edits)
    found = [refusal(data, tmp_path, way) for way in WAYS]
    assert found == [forward, forward, indexed]


def test_where_chunks_can_lie(tmp_path):
    """Behind the header, at multiples of the alignment."""
    with opened(EXTRAS, tmp_path, "file") as reader:
        assert reader.alignment == 256
        first = reader.chunk_at(reader.first_chunk)
        assert (first.header.type, first.raw) == (chunk.HEAD, None)
        for offset in (reader.first_chunk - 256, 0, reader.first_chunk + 64):
            with pytest.raises(ContainerError) as found:
                reader.chunk_at(offset)
            assert (found.value.error_id, found.value.offset) == ("E304", offset)


def test_a_header_that_contradicts_itself(tmp_path):
    """What its members say of each other is E304 at the header, whoever finds it."""
    body = take_apart(RAW)
    shape = body["header"]["content"]["parts"][0]["key"]["shape"]
    shape |= {"attention_kind": "mha", "query_heads": 1, "rope_state": "nonsense"}
    data = put_together(body)
    assert [refusal(data, tmp_path, way) for way in WAYS] == [("E304", 64)] * 3


def test_a_leaf_for_a_root(tmp_path):
    """Where the root should be lies a leaf: an index of the wrong kind."""
    data = operate(RAW, sets("/footer/root", LEAF) + sets("/footer/chunks", 4))
    assert refusal(data, tmp_path, "index") == ("E304", LEAF)


def test_no_pages(tmp_path):
    """A root alone is an index of nothing: layers are missing then."""
    body = take_apart(RAW)
    body["chunks"] = [each for each in body["chunks"] if each.get("kind") == 1]
    assert refusal(put_together(body), tmp_path, "index") == ("E304", None)


def test_a_page_is_the_one_of_its_entry(tmp_path):
    """Type, sequence and lengths."""
    with opened(RAW, tmp_path, "file") as reader:
        (first, second) = reader.entries()
        page = reader.page(first)
        assert isinstance(page, Chunk)
        assert (page.header.sequence, page.header.offset) == (first.sequence, first.offset)
        mixed = index.PageEntry(
            second.offset, first.stored, first.packed, first.record, first.sequence, b"", b""
        )
        with pytest.raises(ContainerError) as found:
            reader.page(mixed)
        assert (found.value.error_id, found.value.offset) == ("E304", second.offset)


def test_whose_the_source_is(tmp_path):
    """A reader that is left closes its source."""
    (tmp_path / "container").write_bytes(RAW)
    with Reader(ByteSource.open(tmp_path / "container")) as reader:
        pass
    with pytest.raises(OSError):
        os.fstat(reader.source._fd)


def test_gaps(tmp_path):
    """Of a partial container from its index; a whole one has none."""
    with opened(RAW, tmp_path, "file") as reader:
        assert reader.gaps() == []
    body = take_apart(RAW)
    lost = {"header_digest": "blake3:" + "0" * 64, "content_root": None}
    body["header"]["content"]["partial"] = lost | {"files": [], "tables": [], "tensors": []}
    body["preamble"]["incompatible"] = 1
    del body["chunks"][2]
    with opened(put_together(body), tmp_path, "file") as reader:
        assert reader.gaps() == [Gap(Role.VALUE, 0, 0, ((0, 1),), 0, 1)]

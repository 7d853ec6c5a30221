"""preamble, chunk, footer and records: every field at its limit, and one beyond it.

The bytes are written with struct from the tables of formats/container.md, not by kvq.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

import pytest
from blake3 import blake3

from kvq_cli.container import chunk, footer, preamble, records
from kvq_cli.errors import ContainerError
from kvq_cli.words import PageKey, Reason, Role

AT = 4096  # where a header is said to lie


def refusal(read: Any, *args: Any) -> ContainerError:
    with pytest.raises(ContainerError) as found:
        read(*args)
    return found.value


def found(read: Any, *args: Any) -> tuple[str, int | None]:
    error = refusal(read, *args)
    return error.error_id, error.offset


def start(**changed: Any) -> bytes:
    """A preamble of 64 bytes; its digest holds for the header `{}`."""
    values = {"magic": preamble.MAGIC, "major": 1, "minor": 0, "incompatible": 0,
              "compatible": 0, "length": 2, "log2": 6, "zero": bytes(7)} | changed  # fmt: skip
    raw = struct.pack("<8sHHIIIB7s", *values.values())
    return raw + blake3(b"kvq/v1/header\0" + raw + b"{}").digest()


@pytest.mark.parametrize(
    ("changed", "length", "alignment"),
    [
        ({}, 2, 64),
        ({"length": 1 << 20}, 1 << 20, 64),
        ({"log2": 21}, 2, 1 << 21),
        ({"log2": 12}, 2, 4096),
        ({"minor": 65535, "compatible": 0xFFFFFFFF}, 2, 64),
    ],
)
def test_preambles_that_are_read(changed, length, alignment):
    """The limits themselves; what a later minor version adds is passed over."""
    read = preamble.read_preamble(start(**changed))
    assert (read.header_length, read.alignment) == (length, alignment)
    assert read.digest == start(**changed)[32:]
    assert read.features == 0
    assert preamble.read_preamble(start(**changed, incompatible=3)).features == 3


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"magic": b"\x89KVQ\r\n\x1a\r"}, ("E301", 0)),
        ({"magic": b"\x00KVQ\r\n\x1a\n"}, ("E301", 0)),
        ({"major": 0}, ("E305", 8)),
        ({"major": 2}, ("E305", 8)),
        ({"incompatible": 4}, ("E305", 12)),
        ({"incompatible": 7}, ("E305", 12)),
        ({"incompatible": 1 << 31}, ("E305", 12)),
        ({"length": 0}, ("E304", 20)),
        ({"length": 1}, ("E304", 20)),
        ({"length": (1 << 20) + 1}, ("E304", 20)),
        ({"log2": 5}, ("E304", 20)),
        ({"log2": 22}, ("E304", 20)),
        ({"log2": 70}, ("E304", 20)),
        ({"zero": bytes(6) + b"\1"}, ("E304", 20)),
        ({"zero": b"\1" + bytes(6)}, ("E304", 20)),
    ],
)
def test_preambles_that_are_refused(changed, error):
    """One beyond each limit, and the place of the field."""
    assert found(preamble.read_preamble, start(**changed)) == error


def test_preambles_that_end_early():
    """What begins like a container is truncated; what does not is none."""
    for size in range(64):
        assert found(preamble.read_preamble, start()[:size]) == ("E302", size)
    assert found(preamble.read_preamble, b"\x89KVq") == ("E301", 0)


def test_the_header_digest_covers_preamble_and_header():
    """It holds for these bytes and no others."""
    read = preamble.read_preamble(start())
    preamble.check_header(start(), read, b"{}")
    assert found(preamble.check_header, start(), read, b"[]") == ("E303", 32)
    assert found(preamble.check_header, start(minor=1), read, b"{}") == ("E303", 32)


@pytest.mark.parametrize(
    ("length", "alignment", "padded"),
    [(0, 64, 0), (1, 64, 64), (63, 64, 64), (64, 64, 64), (65, 64, 128), (4097, 4096, 8192)],
)
def test_padding(length, alignment, padded):
    """Up to the next multiple, and no further."""
    assert preamble.padded(length, alignment) == padded
    assert preamble.Preamble(length, alignment, b"", 0).first_chunk == preamble.padded(
        64 + length, alignment
    )


def test_what_is_framed_is_read():
    """A preamble that kvq writes, of the largest header and the largest alignment too."""
    for size, alignment, features in ((2, 64, 0), (2, 64, 3), (1 << 20, 1 << 21, 0)):
        header = b"x" * size
        raw, digest = preamble.frame_preamble(header, alignment, features)
        read = preamble.read_preamble(raw)
        assert (read.header_length, read.alignment, read.digest) == (size, alignment, digest)
        log2 = alignment.bit_length() - 1
        assert raw[:32] == start(length=size, log2=log2, incompatible=features)[:32]
        preamble.check_header(raw, read, header)
    with pytest.raises(ContainerError) as large:
        preamble.frame_preamble(bytes((1 << 20) + 1), 64, 0)
    assert large.value.error_id == "E306"


def head(crc: int = 0, **changed: Any) -> bytes:
    """A chunk header; `crc` is xored into the one that holds."""
    values = {"kind": b"PAGE", "zero": bytes(4), "stored": 5, "packed": 7, "sequence": 3} | changed
    raw = struct.pack("<4s4sQQI", *values.values())
    return raw + struct.pack("<I", zlib.crc32(raw) ^ crc) + bytes(range(32))


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"stored": 1 << 27, "packed": 1 << 27},
        {"packed": 1 << 27},
        {"stored": 0, "packed": 0},
        {"stored": 7 + (1 << 16)},
        {"kind": b"HEAD", "packed": (8 << 20) + 8},
        {"kind": b"TABL", "packed": 1 << 22},
        {"kind": b"TENS", "packed": 1 << 22, "stored": (1 << 22) + (1 << 16)},
        {"kind": b"note", "stored": 1 << 22, "packed": 1 << 22},
        {"kind": b"INDX", "stored": 32 + (1 << 19), "packed": 32 + (1 << 19)},
        {"kind": b"INDX", "stored": 32 + (1 << 20), "packed": 32 + (1 << 20), "sequence": 1 << 14},
        {"sequence": 0xFFFFFFFF},
        {"kind": b"INDX", "packed": 5},
        {"kind": b"INDX", "stored": 7},
        {"kind": b"note"},
        {"kind": b"zZZZ"},
        {"kind": b"aAAA"},
        *({"kind": kind} for kind in (b"HEAD", b"TABL", b"TENS", b"qual")),
    ],
)
def test_chunk_headers_that_are_read(changed):
    """The limits themselves, every type, and ancillary ones that nobody knows."""
    raw = head(**changed)
    read = chunk.read_chunk_header(raw, AT)
    values = {"kind": b"PAGE", "stored": 5, "packed": 7, "sequence": 3} | changed
    assert (read.type, read.stored, read.packed, read.sequence) == tuple(values.values())
    assert (read.raw, read.digest, read.offset) == (raw[:32], raw[32:], AT)
    assert read.ancillary == values["kind"][:1].islower()


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"crc": 1}, "E303"),
        ({"crc": 1 << 31}, "E303"),
        ({"zero": b"\0\0\0\1"}, "E304"),
        ({"zero": b"\1\0\0\0"}, "E304"),
        ({"stored": (1 << 27) + 1}, "E304"),
        ({"packed": (1 << 27) + 1}, "E304"),
        ({"stored": (1 << 27) + 1, "packed": 1 << 27}, "E304"),
        ({"stored": 8 + (1 << 16)}, "E304"),
        ({"stored": 1 << 16, "packed": 0, "kind": b"PAGF"}, "E305"),
        ({"kind": b"HEAD", "packed": (8 << 20) + 9}, "E304"),
        ({"kind": b"TABL", "packed": (1 << 22) + 1}, "E304"),
        ({"kind": b"TENS", "packed": (1 << 22) + 1}, "E304"),
        ({"kind": b"note", "stored": (1 << 22) + 1}, "E304"),
        ({"kind": b"note", "packed": (1 << 22) + 1}, "E304"),
        ({"kind": b"PAGX", "stored": 1 << 27, "packed": 1 << 27}, "E305"),
        ({"kind": b"Qage", "stored": 1 << 27, "packed": 1 << 27}, "E305"),
        ({"kind": b"qAGE", "stored": (1 << 22) + 1}, "E304"),
        ({"kind": b"PAGX", "stored": (1 << 27) + 1}, "E304"),
        ({"kind": b"PAGX", "packed": (1 << 27) + 1}, "E304"),
        ({"kind": b"INDX", "stored": 33 + (1 << 19), "packed": 33 + (1 << 19)}, "E304"),
        (
            {
                "kind": b"INDX",
                "stored": 33 + (1 << 20),
                "packed": 33 + (1 << 20),
                "sequence": 1 << 14,
            },
            "E304",
        ),
        ({"stored": 1 << 63}, "E304"),
        ({"kind": b"INDX"}, "E304"),
        ({"kind": b"PAG3"}, "E304"),
        ({"kind": b"PAG\0"}, "E304"),
        ({"kind": b"P\xc3\x84G"}, "E304"),
        ({"kind": b"\xe4bcd"}, "E304"),
        ({"kind": b"pag "}, "E304"),
        ({"kind": b"PAGX"}, "E305"),
        ({"kind": b"Page"}, "E305"),
        ({"kind": b"ZZZZ"}, "E305"),
    ],
)
def test_chunk_headers_that_are_refused(changed, error):
    """One beyond each limit; at the offset of the chunk."""
    assert found(chunk.read_chunk_header, head(**changed), AT) == (error, AT)


def test_crcs_of_chunk_headers():
    """Whether it holds, of any bytes; of too few it does not."""
    assert chunk.crc_holds(head())
    assert chunk.crc_holds(head()[:32])
    assert not chunk.crc_holds(head(crc=1))
    assert not any(chunk.crc_holds(head()[:size]) for size in range(32))


def test_chunk_headers_that_end_early():
    """The offset is where the file ends."""
    for size in range(64):
        assert found(chunk.read_chunk_header, head()[:size], AT) == ("E302", AT + size)


def test_payloads_are_bound():
    """To their header, the file, and every byte."""
    raw, digest = chunk.frame_chunk((b"PAGE", 3, 9, 1), b"h" * 32, blake3(b"abc").digest())
    hasher = blake3(b"kvq/v1/chunk\0" + b"h" * 32 + raw[:32] + blake3(b"abc").digest())
    assert (raw[32:], digest) == (hasher.digest(), hasher.digest())
    read = chunk.read_chunk_header(raw, AT)
    chunk.check_payload(read, b"h" * 32, b"abc")
    assert found(chunk.check_payload, read, b"h" * 32, b"ab") == ("E302", AT + 64)
    assert found(chunk.check_payload, read, b"h" * 32, b"abcd") == ("E302", AT + 64)
    assert found(chunk.check_payload, read, b"h" * 32, b"abd") == ("E303", AT)
    assert found(chunk.check_payload, read, b"i" * 32, b"abc") == ("E303", AT)


def end(crc: int = 0, **changed: Any) -> bytes:
    values = {"root": 640, "length": AT + 128, "chunks": 5, "zero": bytes(4), "pages": 2,
              "content": b"c" * 32, "file": b"f" * 32} | changed  # fmt: skip
    zeros = values.pop("zeros", bytes(20))
    magic = values.pop("magic", b"\x0a\x1a\x0a\x0d\x51\x56\x4b\x89")
    raw = struct.pack("<QQI4sQ32s32s", *values.values())
    return raw + struct.pack("<I20s8s", zlib.crc32(raw) ^ crc, zeros, magic)


def test_a_footer_is_read():
    """Every field comes from its place, and is framed to the same bytes."""
    read = footer.read_footer(end(), AT)
    assert read == footer.Footer(640, AT + 128, 5, 2, b"c" * 32, b"f" * 32)
    assert footer.frame_footer(read) == end()


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"magic": b"\x0a\x1a\x0a\x0d\x51\x56\x4b\x88"}, "E302"),
        ({"magic": b"\x0b\x1a\x0a\x0d\x51\x56\x4b\x89"}, "E302"),
        ({"crc": 1}, "E303"),
        ({"crc": 1 << 31}, "E303"),
        ({"zero": b"\0\0\0\1"}, "E304"),
        ({"zeros": b"\1" + bytes(19)}, "E304"),
        ({"zeros": bytes(19) + b"\1"}, "E304"),
        ({"length": AT + 127}, "E304"),
        ({"length": AT + 129}, "E304"),
    ],
)
def test_footers_that_are_refused(changed, error):
    """At the offset of the footer."""
    assert found(footer.read_footer, end(**changed), AT) == (error, AT)


def test_footers_of_another_size():
    """The file ends in the middle of it, or has more."""
    for raw in (end()[1:], end()[:-1], b"\0" + end(), b""):
        assert found(footer.read_footer, raw, AT) == ("E302", AT)


def page(**changed: Any) -> bytes:
    values = {"role": 1, "reason": 0, "codec": 2, "batch": 3, "layer": 4, "layers": 1,
              "start": 6, "tokens": 7, "head_set": 8} | changed  # fmt: skip
    return struct.pack("<BBHIIIQII", *values.values())


def test_a_page_record_is_read():
    """Every field comes from its place, and is packed to the same bytes."""
    read = records.read_page_record(page(), AT)
    assert read.key == PageKey(Role.VALUE, 3, 4, 6, 8, 13, 1)
    assert (read.codec, read.reason) == (2, Reason.NONE)
    assert read.pack() == page()
    for reason in Reason:
        assert records.read_page_record(page(reason=reason.value), AT).reason is reason
    assert records.read_page_record(page(start=(1 << 48) - 1), AT).key.start == (1 << 48) - 1
    assert records.read_page_record(page(tokens=1), AT).key.stop == 7


@pytest.mark.parametrize(
    "raw",
    [
        page()[:-1],
        page() + b"\0",
        page(role=2),
        page(role=255),
        page(reason=6),
        page(tokens=0),
        page(start=1 << 48),
    ],
)
def test_page_records_that_are_refused(raw):
    """Roles and reasons that there are not, no tokens, and starts beyond counting."""
    assert found(records.read_page_record, raw, AT) == ("E304", AT)


def test_records_of_pieces():
    """Number, zero, offset; and the number of a file."""
    raw = struct.pack("<IIQ", 3, 0, 1 << 33)
    assert records.read_piece_record(raw, AT) == (3, 1 << 33)
    assert records.pack_piece_record(3, 1 << 33) == raw
    assert records.pack_source_record(3) == struct.pack("<II", 3, 0)
    assert found(records.read_piece_record, struct.pack("<IIQ", 3, 1, 0), AT) == ("E304", AT)
    assert found(records.read_piece_record, raw[:-1], AT) == ("E304", AT)
    assert found(records.read_piece_record, raw + b"\0", AT) == ("E304", AT)


def test_pieces():
    """Four MiB each, the last one shorter; of nothing there is none."""
    size = 1 << 22
    assert list(records.pieces([0, 1, size, size + 1, 2 * size])) == [
        (1, 0, 1),
        (2, 0, size),
        (3, 0, size),
        (3, size, 1),
        (4, 0, size),
        (4, size, size),
    ]

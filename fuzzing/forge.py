"""forge: digests, CRCs, lengths and roots made anew, so that a lie reaches the code behind them.

Written from formats/container.md. tests/support/surgery.py does the same for bodies of JSON; this
is fast, takes any bytes, and never fails.

    stream := piece*
    piece  := kind(1) length(2) body
    kind   bits 0 to 2  HEAD TABL TENS PAGE INDX qual note, or `file`, which is no chunk
           bit 3        the body begins with a lie: which(1), and the number(8) it tells
    body   the payload; of INDX what is written over the one that is made, see `_index`; of `file`
           an edit of the footer, or bytes behind it, see `_end`

| lie | |
|---|---|
| 1 to 5 | stored length, packed length, sequence, the zero, the type of the chunk header |
| 6, 7 | another CRC; a digest that is bound to another file |
| 8 | a byte of the padding |
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

import zstandard
from blake3 import blake3

TYPES: Final = (b"HEAD", b"TABL", b"TENS", b"PAGE", b"INDX", b"qual", b"note", b"file")
LIE: Final = 8
RECORDS: Final = {b"HEAD": 8, b"TABL": 16, b"TENS": 16, b"PAGE": 32}
PACKED: Final = frozenset({b"TENS", b"PAGE"})  # of whose planes content_root tells
PIECE: Final = struct.Struct("<BH")
NUMBER: Final = struct.Struct("<BQ")
GUARDED: Final = struct.Struct("<4sIQQI")
ENTRY: Final = struct.Struct("<IIQQ")
FOOTER: Final = struct.Struct("<QQIIQ32s32s")
MOST: Final = 1 << 16  # bytes that a plane may have before it counts as empty
MOST_CHUNKS: Final = 100
LIES: Final = {1: 2, 2: 3, 3: 4, 4: 1}  # places in GUARDED
NAME, CRC, BOUND, PADDING = 5, 6, 7, 8
U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1
INFLATE: Final = zstandard.ZstdDecompressor()


def tagged(tag: bytes, *parts: bytes) -> bytes:
    return blake3(b"".join([tag, b"\0", *parts])).digest()


def header(fields: bytes, text: bytes) -> bytes:
    """Preamble and header JSON; `fields` are the bytes of the preamble before its digest."""
    return fields + tagged(b"kvq/v1/header", fields, text) + text


def preamble(length: int, log2: int, incompatible: int = 0) -> bytes:
    """The preamble before its digest."""
    fields = struct.pack("<HHIIIB7x", 1, 0, incompatible, 0, length & U32, log2)
    return b"\x89KVQ\r\n\x1a\n" + fields


class Forge:
    """The chunks of a container, as bytes that hold together."""

    def __init__(
        self, start: bytes, alignment: int, content: bytes, sources: dict[bytes, bytes]
    ) -> None:
        """`start` is all before the first chunk; `sources` are source digests by packed digest."""
        self.digest = start[32:64]
        self.alignment = alignment
        self.content = content
        self.sources = sources
        self.begin = len(start)
        self._clear()

    def _clear(self) -> None:
        self.out = bytearray()
        self.sequence = self.pages = self.root = 0
        self.waiting: list[bytes] = []  # entries of the next leaf
        self.leaves: list[bytes] = []  # and of the root
        self.packed: list[bytes] = []
        self.digests: list[bytes] = []
        self.planes: list[bytes] = []  # of the chunk at hand, before entropy coding

    def made(self, stream: bytes) -> bytes:
        """All from the first chunk to the end of the file."""
        self._clear()
        edits: list[bytes] = []
        at = 0
        while at + PIECE.size <= len(stream) and self.sequence < MOST_CHUNKS:
            kind, length = PIECE.unpack_from(stream, at)
            at += PIECE.size
            body = stream[at : at + length]
            at += length
            lie, number = 0, 0
            if kind & LIE and len(body) >= NUMBER.size:
                lie, number = NUMBER.unpack_from(body)
                body = body[NUMBER.size :]
            name = TYPES[kind & 7]
            if name == b"file":
                edits.append(body)
            else:
                self._add(name, body, lie, number)
        self._end(edits)
        return bytes(self.out)

    def _add(self, name: bytes, body: bytes, lie: int, number: int) -> None:
        packed, total, payload = b"", len(body), body
        if name in RECORDS:
            packed, total = self._coded(name, body)
        elif name == b"INDX":
            payload = self._index(body)
            total = len(payload)
        facts = [name, 0, len(payload), total & U64, self.sequence]
        if place := LIES.get(lie):
            facts[place] = number & U32 if place in {1, 4} else number
        if lie == NAME:
            facts[0] = name = number.to_bytes(8, "little")[:4]
        start = GUARDED.pack(*facts)
        start += struct.pack("<I", number & U32 if lie == CRC else zlib.crc32(start))
        bound = bytes(32) if lie == BOUND else self.digest
        digest = tagged(b"kvq/v1/chunk", bound, start, blake3(payload).digest())
        self._note(name, start[8:28], payload, packed, digest)
        self.out += start + digest + payload
        padding = bytearray(-len(self.out) % self.alignment)
        if lie == PADDING and padding:
            padding[number % len(padding)] = 1
        self.out += padding

    def _coded(self, name: bytes, body: bytes) -> tuple[bytes, int]:
        """Packed digest and packed length of a payload of planes, as far as it is one."""
        at = RECORDS[name] + 8
        head = body[:at]
        count = int.from_bytes(body[at - 8 : at - 4], "little")
        if len(body) < at or count > 64 or len(body) < at + 24 * count:
            return blake3(body).digest(), len(body)
        begin = at + 24 * count
        lengths, planes, total = [], [], 0
        for entropy, _, stored, packed in ENTRY.iter_unpack(body[at:begin]):
            plane = body[begin : begin + stored]
            begin += stored
            planes.append(inflated(plane, packed) if entropy == 1 else plane)
            lengths.append(packed.to_bytes(8, "little"))
            total += packed
        self.planes = planes
        return tagged(b"kvq/v1/packed", name, head, *lengths, *planes), total

    def _index(self, over: bytes) -> bytes:
        """The leaf of the pages that wait, or the root.

        over := place(2) cut(1) bytes, which are written there; `cut` bytes of the end are left out
        """
        entries, kind, first = self.leaves, 1, 0
        if self.waiting:
            entries, kind, first = self.waiting, 0, self.pages - len(self.waiting)
        payload = struct.pack("<IIQ16x", kind, len(entries), first) + b"".join(entries)
        if len(over) < 3:
            return payload
        place, cut = int.from_bytes(over[:2], "little"), over[2]
        changed = bytearray(payload)
        place %= len(changed)
        changed[place : place + len(over) - 3] = over[3:]
        return bytes(changed[: len(changed) - cut] if cut < 128 else changed)

    def _note(
        self, name: bytes, guarded: bytes, payload: bytes, packed: bytes, digest: bytes
    ) -> None:
        """What index and roots say of a chunk; `guarded` is its lengths and sequence number."""
        self.root = offset = self.begin + len(self.out)
        self.digests.append(digest)
        self.sequence += 1
        if name in PACKED:
            self.packed.append(packed)
        if name == b"PAGE":
            record = payload[:32].ljust(32, b"\0")
            source = self.sources.get(packed) or blake3(b"".join(self.planes)).digest()
            place = struct.pack("<Q16s32s4s4x", offset, guarded[:16], record, guarded[16:])
            self.waiting.append(place + packed + source)
            self.pages += 1
        elif name == b"INDX" and self.waiting:
            first, count = self.pages - len(self.waiting), len(self.waiting)
            place = struct.pack("<Q8sQI4s", offset, guarded[:8], first, count, guarded[16:])
            self.leaves.append(place + digest)
            self.waiting = []

    def _end(self, edits: list[bytes]) -> None:
        """The footer; an edit is place(1) in it and bytes, or 96 and more and bytes behind it."""
        content_root = tagged(b"kvq/v1/content", self.content, *self.packed)
        file_root = tagged(b"kvq/v1/file", self.digest, *self.digests)
        length = self.begin + len(self.out) + 128
        fields = bytearray(
            FOOTER.pack(self.root, length, self.sequence, 0, self.pages, content_root, file_root)
        )
        tail = b""
        for edit in edits:
            place = edit[0] if edit else 0
            if place < FOOTER.size:
                fields[place : place + len(edit) - 1] = edit[1:]
            else:
                tail += edit[1:]
        del fields[FOOTER.size :]
        self.out += fields + struct.pack("<I20x", zlib.crc32(fields)) + b"\n\x1a\n\rQVK\x89" + tail


def inflated(frame: bytes, packed: int) -> bytes:
    """What a zstd frame holds; nothing where it is none or large."""
    try:
        return INFLATE.decompress(frame, max_output_size=min(packed, MOST))
    except (zstandard.ZstdError, MemoryError):
        return b""


def pieces(chunks: bytes, alignment: int) -> bytes:
    """The stream of pieces that makes the chunks of a valid container."""
    made, at = [], 0
    while chunks[at : at + 4] and chunks[at : at + 4] in TYPES:
        name, stored = chunks[at : at + 4], int.from_bytes(chunks[at + 8 : at + 16], "little")
        body = b"" if name == b"INDX" else chunks[at + 64 : at + 64 + stored]
        made.append(PIECE.pack(TYPES.index(name), len(body)) + body)
        at += 64 + stored + -(64 + stored) % alignment
    return b"".join(made)

"""chunk: the 64-byte header in front of every payload.

Spec: formats/container.md, section "Chunk header".

     0   4  type                     24   4  sequence number
     4   4  zero                     28   4  CRC-32 of bytes 0 to 27
     8   8  stored length            32  32  chunk digest
    16   8  packed length

The CRC guards the length before it is believed; the digest binds payload, header, place
and file.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from kvq_cli.digest import Buffer, plain, tagged
from kvq_cli.errors import ContainerError, DigestError
from kvq_cli.record import record

SIZE: Final = 64
MAX_LENGTH: Final = 1 << 27
GUARDED: Final = struct.Struct("<4s4sQQI")
CRC: Final = struct.Struct("<I")

HEAD: Final = b"HEAD"
TABL: Final = b"TABL"
TENS: Final = b"TENS"
PAGE: Final = b"PAGE"
INDX: Final = b"INDX"
QUAL: Final = b"qual"
KNOWN: Final = (HEAD, TABL, TENS, PAGE, INDX)
# The most that planes of a type take, packed; stored, entropy coding may add SLACK and no more.
MOST: Final = {HEAD: (8 << 20) + 8, TABL: 1 << 22, TENS: 1 << 22, PAGE: MAX_LENGTH}
MOST_ANCILLARY: Final = 1 << 22
SLACK: Final = 1 << 16
INDEX_HEAD: Final = 32
LEAF: Final = 4096 * 128


@record
class ChunkHeader:
    """One chunk header; `raw` is its 32 digested bytes."""

    type: bytes
    stored: int
    packed: int
    sequence: int
    digest: bytes
    raw: bytes
    offset: int

    @property
    def ancillary(self) -> bool:
        return bool(self.type[0] & 0x20)


def frame_chunk(
    guarded: tuple[bytes, int, int, int], header_digest: bytes, payload_digest: bytes
) -> tuple[bytes, bytes]:
    """The chunk header of type, stored length, packed length and sequence; and the chunk digest."""
    kind, stored, packed, sequence = guarded
    fields = GUARDED.pack(kind, bytes(4), stored, packed, sequence)
    raw = fields + CRC.pack(zlib.crc32(fields))
    digest = chunk_digest(header_digest, raw, payload_digest)
    return raw + digest, digest


def chunk_digest(header_digest: bytes, raw: bytes, payload_digest: bytes) -> bytes:
    return tagged("kvq/v1/chunk", [header_digest, raw, payload_digest])


def read_chunk_header(raw: bytes, offset: int) -> ChunkHeader:
    """The header at `offset`; the digest waits for the payload, in check_payload."""
    if len(raw) < SIZE:
        raise ContainerError("E302", "file ends inside a chunk header", offset + len(raw))
    kind, zero, stored, packed, sequence = GUARDED.unpack_from(raw)
    if not crc_holds(raw):
        raise DigestError("chunk header CRC does not hold", offset)
    if zero != bytes(4) or not _may_take(kind, stored, packed, sequence):
        raise ContainerError("E304", "chunk header holds a value outside the spec", offset)
    if not kind.isalpha():  # of bytes, which asks for ASCII
        raise ContainerError("E304", f"chunk type {kind!r} is not four letters", offset)
    header = ChunkHeader(kind, stored, packed, sequence, raw[32:64], raw[:32], offset)
    if kind not in KNOWN and not header.ancillary:
        raise ContainerError("E305", f"chunk type {kind.decode()} needs a newer kvq", offset)
    return header


def crc_holds(raw: bytes) -> bool:
    """Whether the CRC of a chunk header does; not of less than one."""
    return raw[28:32] == CRC.pack(zlib.crc32(raw[:28]))


def _may_take(kind: bytes, stored: int, packed: int, sequence: int) -> bool:
    """Whether a chunk may have these lengths, before anything is read or allocated for it."""
    if kind in MOST:
        return packed <= MOST[kind] and stored <= min(packed + SLACK, MAX_LENGTH)
    if kind == INDX:
        # A root has 64 bytes for each leaf, and each leaf is a chunk before it.
        return stored == packed and stored <= INDEX_HEAD + max(LEAF, 64 * sequence)
    return max(stored, packed) <= (MOST_ANCILLARY if kind[0] & 0x20 else MAX_LENGTH)


def check_payload(header: ChunkHeader, header_digest: bytes, payload: Buffer) -> None:
    """DigestError unless the payload is the one that was framed here."""
    if len(payload) != header.stored:
        raise ContainerError("E302", "file ends inside a payload", header.offset + SIZE)
    if chunk_digest(header_digest, header.raw, plain(payload)) != header.digest:
        raise DigestError(f"{header.type.decode()} chunk digest does not hold", header.offset)

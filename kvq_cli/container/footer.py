"""footer: the last 128 bytes: where the index is, how long the file is, both roots.

Spec: formats/container.md, section "Footer".

     0   8  offset of the root index  64  32  file_root
     8   8  file length               96   4  CRC-32 of bytes 0 to 95
    16   4  number of chunks         100  20  zero
    20   4  zero                     120   8  end magic
    24   8  number of pages
    32  32  content_root
"""

from __future__ import annotations

import struct
import zlib
from typing import Final

from kvq_cli.container.preamble import MAGIC
from kvq_cli.errors import ContainerError, DigestError
from kvq_cli.record import record

SIZE: Final = 128
END_MAGIC: Final = MAGIC[::-1]
FIELDS: Final = struct.Struct("<QQI4sQ32s32s")
TAIL: Final = struct.Struct("<I20s8s")


@record
class Footer:
    """What the last 128 bytes say."""

    index_offset: int
    file_length: int
    chunks: int
    pages: int
    content_root: bytes
    file_root: bytes


def frame_footer(footer: Footer) -> bytes:
    fields = FIELDS.pack(
        footer.index_offset,
        footer.file_length,
        footer.chunks,
        bytes(4),
        footer.pages,
        footer.content_root,
        footer.file_root,
    )
    return fields + TAIL.pack(zlib.crc32(fields), bytes(20), END_MAGIC)


def read_footer(raw: bytes, offset: int) -> Footer:
    """The footer at `offset`; ContainerError unless every byte of it can be right."""
    if len(raw) != SIZE or raw[120:] != END_MAGIC:
        raise ContainerError("E302", "no footer at the end: the file is truncated", offset)
    index, length, chunks, zero, pages, content_root, file_root = FIELDS.unpack_from(raw)
    crc, zeros, _ = TAIL.unpack_from(raw, FIELDS.size)
    if crc != zlib.crc32(raw[: FIELDS.size]):
        raise DigestError("footer CRC does not hold", offset)
    if zero != bytes(4) or zeros != bytes(20) or length != offset + SIZE:
        raise ContainerError("E304", "footer holds a value outside the spec", offset)
    return Footer(index, length, chunks, pages, content_root, file_root)

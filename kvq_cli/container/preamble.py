"""preamble: the first 64 bytes of a container and the digest over the header.

Spec: formats/container.md, section "Preamble".

     0   8  magic                    20   4  length of the header JSON
     8   2  major version            24   1  log2 of the alignment
    10   2  minor version            25   7  zero
    12   4  incompatible features    32  32  header digest
    16   4  compatible features
"""

from __future__ import annotations

import struct
from typing import Final

from kvq_cli.digest import tagged
from kvq_cli.errors import ContainerError, DigestError
from kvq_cli.record import record

MAGIC: Final = b"\x89KVQ\r\n\x1a\n"
MAJOR: Final = 1
MINOR: Final = 0
SIZE: Final = 64
MAX_HEADER: Final = 1 << 20
FIELDS: Final = struct.Struct("<8sHHIIIB7s")

# Incompatible features: rows are lost; tables lie elsewhere.
PARTIAL: Final = 1
REFERENCED: Final = 2


@record
class Preamble:
    """What is known before the header is read."""

    header_length: int
    alignment: int
    digest: bytes
    features: int  # the incompatible ones

    @property
    def first_chunk(self) -> int:
        return padded(SIZE + self.header_length, self.alignment)


def padded(length: int, alignment: int) -> int:
    """`length` rounded up to the alignment, a power of two."""
    return (length + alignment - 1) & -alignment


def frame_preamble(header: bytes, alignment: int, features: int) -> tuple[bytes, bytes]:
    """The preamble of a header, and the header digest."""
    if len(header) > MAX_HEADER:
        raise ContainerError(
            "E306", f"header JSON of {len(header)} bytes, at most {MAX_HEADER} fit a container"
        )
    log2 = alignment.bit_length() - 1
    fields = FIELDS.pack(MAGIC, MAJOR, MINOR, features, 0, len(header), log2, bytes(7))
    digest = header_digest(fields, header)
    return fields + digest, digest


def header_digest(fields: bytes, header: bytes) -> bytes:
    return tagged("kvq/v1/header", [fields, header])


def read_preamble(raw: bytes) -> Preamble:
    """The preamble; its digest is checked with the header that follows, by check_header."""
    if raw[:8] != MAGIC[: len(raw)]:
        raise ContainerError("E301", "no kvq magic: not a kvq container", 0)
    if len(raw) < SIZE:
        raise ContainerError("E302", f"file ends after {len(raw)} bytes of the preamble", len(raw))
    _, major, _, incompatible, _, length, log2, zero = FIELDS.unpack(raw[:32])
    # Version before digest: another major version may put the digest elsewhere.
    if major != MAJOR:
        raise ContainerError("E305", f"container version {major}; this kvq reads {MAJOR}", 8)
    if unknown := incompatible & ~(PARTIAL | REFERENCED):
        bit = unknown.bit_length() - 1
        raise ContainerError("E305", f"incompatible feature bit {bit} is unknown to this kvq", 12)
    if not 2 <= length <= MAX_HEADER or not 6 <= log2 <= 21 or zero != bytes(7):
        raise ContainerError("E304", "preamble holds a value outside the spec", 20)
    return Preamble(length, 1 << log2, raw[32:64], incompatible)


def check_header(raw: bytes, preamble: Preamble, header: bytes) -> None:
    if header_digest(raw[:32], header) != preamble.digest:
        raise DigestError("header digest does not hold: preamble or header is damaged", 32)

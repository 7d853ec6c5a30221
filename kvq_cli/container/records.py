"""records: the fixed-size fields that begin the payloads of PAGE, TABL, TENS and HEAD.

Spec: formats/container.md, section "Records".

PAGE   0  1  role           4  4  batch entry        16  8  first token
       1  1  reason         8  4  first layer        24  4  number of tokens
       2  2  codec         12  4  number of layers   28  4  head set
TABL   0  4  table          4  4  zero                8  8  offset in the table
TENS   0  4  tensor         4  4  zero                8  8  offset in the tensor
HEAD   0  4  file           4  4  zero
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from kvq_cli.errors import ContainerError
from kvq_cli.record import record
from kvq_cli.words import PageKey, Reason, Role

PAGE_FIELDS: Final = struct.Struct("<BBHIIIQII")
PIECE_FIELDS: Final = struct.Struct("<IIQ")
SOURCE_FIELDS: Final = struct.Struct("<II")
ROLES: Final = tuple(Role)
REASONS: Final = tuple(Reason)
PIECE: Final = 1 << 22  # bytes of a table or tensor in one chunk


@record
class PageRecord:
    """Which page a payload holds, by which codec, and why."""

    key: PageKey
    codec: int
    reason: Reason

    def pack(self) -> bytes:
        key = self.key
        return PAGE_FIELDS.pack(
            key.role,
            self.reason,
            self.codec,
            key.batch,
            key.layer,
            key.layers,
            key.start,
            key.stop - key.start,
            key.head_set,
        )


def read_page_record(raw: bytes, offset: int) -> PageRecord:
    """ContainerError unless role and reason exist; the manifest checks the rest."""
    if len(raw) != PAGE_FIELDS.size:
        raise ContainerError("E304", "payload is too short for its record", offset)
    role, reason, codec, batch, layer, layers, start, count, head_set = PAGE_FIELDS.unpack(raw)
    if role >= len(ROLES) or reason >= len(REASONS) or count == 0 or start >= 1 << 48:
        raise ContainerError("E304", "page record holds a value outside the spec", offset)
    key = PageKey(ROLES[role], batch, layer, start, head_set, start + count, layers)
    return PageRecord(key, codec, REASONS[reason])


def pack_piece_record(number: int, at: int) -> bytes:
    """The record of a TABL or TENS chunk."""
    return PIECE_FIELDS.pack(number, 0, at)


def read_piece_record(raw: bytes, offset: int) -> tuple[int, int]:
    """Number of the table or tensor, and offset in it."""
    if len(raw) != PIECE_FIELDS.size:
        raise ContainerError("E304", "payload is too short for its record", offset)
    number, zero, at = PIECE_FIELDS.unpack(raw)
    if zero:
        raise ContainerError("E304", "record of a piece holds a value outside the spec", offset)
    return number, at


def pieces(sizes: Iterable[int]) -> Iterator[tuple[int, int, int]]:
    """The chunks that hold tables or tensors of these sizes: number, offset, length."""
    for number, size in enumerate(sizes):
        for at in range(0, size, PIECE):
            yield number, at, min(PIECE, size - at)


def pack_source_record(number: int) -> bytes:
    return SOURCE_FIELDS.pack(number, 0)

"""coded: a payload of planes, each stored or one zstd frame.

Spec: formats/container.md, section "Coded payloads".

    record | count 4, zero 4 | entry * count | stored plane * count
    entry: entropy 4, zero 4, stored length 8, packed length 8
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvq_cli.container.entropy import STORED, ZSTD, Coder, Decoder
from kvq_cli.digest import Buffer, plain, tagged
from kvq_cli.errors import ContainerError
from kvq_cli.record import record

COUNT: Final = struct.Struct("<II")
ENTRY: Final = struct.Struct("<IIQQ")
MAX_PLANES: Final = 64


@record
class Coded:
    """A coded payload, ready to be framed."""

    type: bytes
    record: bytes
    payload: bytes
    payload_digest: bytes
    stored: int  # bytes of the planes as they are stored
    packed: int  # and before entropy coding
    packed_digest: bytes


class PlaneEntry(NamedTuple):
    """Where one plane lies in its payload."""

    entropy: int
    at: int
    stored: int
    packed: int


class Table(NamedTuple):
    """Record and plane table of a payload whose digest held."""

    type: bytes
    record: bytes
    planes: tuple[PlaneEntry, ...]


def code(kind: bytes, record: bytes, planes: Sequence[Buffer], coder: Coder | None) -> Coded:
    """The payload of `planes`; without a coder every plane is stored."""
    entries, stored = [], []
    for plane in planes:
        frame = coder.code(plane) if coder else None
        stored.append(plane if frame is None else frame)
        entropy = STORED if frame is None else ZSTD
        entries.append(ENTRY.pack(entropy, 0, len(stored[-1]), len(plane)))
    payload = b"".join([record, COUNT.pack(len(planes), 0), *entries, *stored])
    return Coded(
        type=kind,
        record=record,
        payload=payload,
        payload_digest=plain(payload),
        stored=sum(map(len, stored)),
        packed=sum(map(len, planes)),
        packed_digest=packed_digest(kind, record, planes),
    )


def packed_digest(kind: bytes, record: bytes, planes: Sequence[Buffer]) -> bytes:
    """The digest that does not know how planes are stored."""
    lengths = struct.pack(f"<{len(planes)}Q", *map(len, planes))
    return tagged("kvq/v1/packed", [kind, record, COUNT.pack(len(planes), 0), lengths, *planes])


def read_table(kind: bytes, record_size: int, payload: memoryview, offset: int) -> Table:
    """The plane table at the head of a payload; ContainerError unless it fills the payload."""
    at = record_size + COUNT.size
    if len(payload) < at:
        raise ContainerError("E304", "payload is too short for its record", offset)
    count, zero = COUNT.unpack_from(payload, record_size)
    if zero or count > MAX_PLANES or len(payload) < at + count * ENTRY.size:
        raise ContainerError("E304", "plane table does not fit its payload", offset + record_size)
    begin = at + count * ENTRY.size
    planes = []
    for entropy, zero, stored, packed in ENTRY.iter_unpack(payload[at:begin]):
        if zero or entropy not in (STORED, ZSTD) or (entropy == STORED and stored != packed):
            raise ContainerError("E304", "plane entry holds a value outside the spec", offset + at)
        planes.append(PlaneEntry(entropy, begin, stored, packed))
        begin += stored
    if begin != len(payload):
        raise ContainerError("E304", "planes do not fill their payload", offset)
    return Table(kind, bytes(payload[:record_size]), tuple(planes))


def check_sizes(table: Table, allowed: Sequence[range], offset: int) -> None:
    """ContainerError unless packed lengths are such as the layout allows."""
    found = [plane.packed for plane in table.planes]
    fits = len(found) == len(allowed) and all(map(range.__contains__, allowed, found))
    if not fits:
        told = [each[0] if len(each) == 1 else f"up to {each[-1]}" for each in allowed]
        raise ContainerError("E304", f"packed lengths {found}, the layout says {told}", offset)


def exactly(sizes: Sequence[int]) -> list[range]:
    """That a plane has just this length."""
    return [range(size, size + 1) for size in sizes]


def decode(table: Table, payload: memoryview, decoder: Decoder, offset: int) -> list[memoryview]:
    """The planes before entropy coding; call check_sizes first."""
    planes = []
    for plane in table.planes:
        stored = payload[plane.at : plane.at + plane.stored]
        if plane.entropy == ZSTD:
            stored = memoryview(decoder.decode(stored, plane.packed, offset + plane.at))
        planes.append(stored)
    return planes

"""salvage: the chunks that a damaged container may still hold, in file order.

Spec: formats/container.md, section "Partial containers".

A chunk header whose CRC holds tells where the next one is. Where none is, headers are searched
byte by byte: bytes may be missing too. Whether digests hold is for whoever loads the chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kvq_cli.container import chunk
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.preamble import padded
from kvq_cli.container.reader import Chunk, Reader
from kvq_cli.errors import ContainerError

WINDOW: Final = 1 << 20
TYPES: Final = re.compile(rb"(?:HEAD|TABL|TENS|PAGE|INDX|qual|note)\0{4}")
# Chunks of a damaged file hardly overlap; those of one that is made to cost time do.
MOST: Final = 2  # times the file


def candidates(reader: Reader) -> Iterator[ChunkHeader]:
    """Chunk headers that may be believed, of chunks that lie in the file."""
    size = reader.source.size or 0
    left = MOST * size + chunk.MAX_LENGTH
    at: int | None = reader.first_chunk
    while at is not None:
        header = _header(reader.source.read(at, chunk.SIZE), at)
        if header is None:
            at = _found(reader, at + 1, size)
            continue
        left -= header.stored
        if left < 0:
            raise ContainerError("E304", "chunks overlap more than damage explains", at)
        if at + chunk.SIZE + header.stored <= size:
            yield header
        following = at + padded(chunk.SIZE + header.stored, reader.alignment)
        follows = _header(reader.source.read(following, chunk.SIZE), following)
        # Where the next one is not, bytes may be missing in this one.
        at = following if follows else _found(reader, at + 1, size)


def unpadded(reader: Reader, header: ChunkHeader) -> Chunk:
    """The chunk with its payload, as if its padding were whole; whoever loads it checks it."""
    payload = reader.source.read(header.offset + chunk.SIZE, header.stored)
    end = chunk.SIZE + header.stored
    return Chunk(header, memoryview(payload + bytes(padded(end, reader.alignment) - end)))


def _header(raw: bytes, at: int) -> ChunkHeader | None:
    try:
        return chunk.read_chunk_header(raw, at)
    except ContainerError:
        return None


def _found(reader: Reader, at: int, size: int) -> int | None:
    """Where the next header is, from `at` on."""
    while at < size:
        window = reader.source.read(at, WINDOW + chunk.SIZE)
        for match in TYPES.finditer(window):
            start = match.start()
            raw = window[start : start + chunk.SIZE]
            if start < WINDOW and chunk.crc_holds(raw) and _header(raw, at + start):
                return at + start
        at += WINDOW
    return None

"""front: what stands before the pages: the source files' heads, and tables for codecs.

Spec: formats/container.md, sections "Chunk header" and "Tables".

Workers are forked with all that the story has, so tables must be there before the first job.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from kvq_cli.capture.files import MAX_HEADS, File, Files
from kvq_cli.container import chunk
from kvq_cli.container.reader import Chunk
from kvq_cli.container.records import pieces
from kvq_cli.digest import plain, text
from kvq_cli.errors import ContainerError, DigestError
from kvq_cli.numerics.scratch import Tables
from kvq_cli.planes import read_only
from kvq_cli.steps.pages import OpenedPiece, PageOpener
from kvq_cli.steps.promised import lost_file
from kvq_cli.words import TableSpec


def load_front(
    opener: PageOpener, chunks: Iterator[Chunk]
) -> tuple[Files, list[OpenedPiece | Chunk]]:
    """Take the source's heads and all tables from the walk, and give the opener the tables.

    What was taken comes back in file order: heads, ancillary chunks, pieces.
    """
    heads: list[OpenedPiece | Chunk] = []
    found: list[File] = []
    left = MAX_HEADS
    for number in range(opener.manifest.sources):
        if number in opener.lost.files:
            found.append(lost_file(opener.manifest, number))
            continue
        each = next(chunks)
        if each.header.type != chunk.HEAD:
            raise ContainerError("E304", "HEAD chunks come first, one a file", each.header.offset)
        left -= each.header.packed
        if left < 0:
            told = f"heads of more than {MAX_HEADS} bytes together"
            raise ContainerError("E306", told, each.header.offset)
        found.append(opener.head(each, number))
        heads.append(each)
    return Files(found), heads + _load_tables(opener, chunks)


def _load_tables(opener: PageOpener, chunks: Iterator[Chunk]) -> list[OpenedPiece | Chunk]:
    tables, lost = opener.manifest.tables, opener.lost.tables
    held = enumerate(opener.manifest.held)
    whole = [bytearray(0 if at in lost else size) for at, size in held]
    taken: list[OpenedPiece | Chunk] = []
    for number, at, size in pieces(map(len, whole)):
        each = next(chunks)
        while each.header.ancillary:
            opener.reader.load(each)
            taken.append(each)
            each = next(chunks)
        if each.header.type != chunk.TABL:
            raise ContainerError("E304", "tables are missing", each.header.offset)
        piece = opener.piece(each)
        if (piece.number, piece.at) != (number, at):
            found = "a TABL piece that is not the next one"
            raise ContainerError("E304", found, each.header.offset)
        whole[number][at : at + size] = piece.data
        taken.append(piece)
    opener.use(checked_tables([pair for pair in zip(tables, whole, strict=True) if pair[1]]))
    return taken


def checked_tables(held: Sequence[tuple[TableSpec, bytearray]]) -> Tables:
    """Tables for codecs; DigestError unless each is the one that it should be."""
    for table, data in held:
        if text(plain(data)) != table.digest:
            raise DigestError(f"digest of a table does not hold: {table.digest}")
    return {
        table.digest: read_only(np.frombuffer(data, table.dtype).reshape(table.shape))
        for table, data in held
    }

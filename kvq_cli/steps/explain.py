"""explain: the first bytes of a container that are wrong, what lies there, and the likely cause.

Spec: formats/report.md, section "verify --explain".

Chunks are gone through from the front, as far as their headers can be believed: the CRC of one
tells where the next begins. What a damaged page was can still be read from its record or, if
that is damaged too, from the index.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kvq_cli.container import chunk, coded, preamble
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.entropy import Decoder
from kvq_cli.container.footer import END_MAGIC
from kvq_cli.container.footer import SIZE as FOOTER
from kvq_cli.container.reader import PAGE_RECORD, PIECE_RECORD, Reader
from kvq_cli.container.records import read_page_record, read_piece_record
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import ContainerError, KvqError
from kvq_cli.record import record

MAGIC: Final = preamble.MAGIC
MAX_LOG2: Final = 22
DAMAGE: Final = "bits were changed after it was written"
FOREIGN: Final = "or the chunk is another file's"
CUT: Final = "the file was cut off, by a copy that stopped or a disk that was full"
MADE: Final = "whoever wrote it wrote it wrong, or forged it"


@record
class Wrong:
    """A byte range, half-open, what lies there, and why it may be wrong."""

    start: int
    stop: int
    what: str
    cause: str

    def __str__(self) -> str:
        return f"bytes {self.start} to {self.stop}: {self.what}; {self.cause}"


def explained(error: ContainerError, path: Path) -> ContainerError:
    """The error with what a second look at the file tells."""
    with ByteSource.open(path) as source:
        found = _found(source)
    return ContainerError(error.error_id, f"{error}; {found}" if found else str(error))


def _found(source: ByteSource) -> Wrong | None:
    size = source.size or 0
    start = source.read(0, preamble.SIZE)
    if start[:8] != MAGIC:
        return _no_magic(start, size)
    try:
        reader = Reader(source)
    except ContainerError as error:
        return _in_front(error, start, source)
    at, sequence = reader.first_chunk, 0
    while at + FOOTER < size:
        wrong, header = _in_chunk(reader, at, sequence, size)
        if wrong is not None or header is None:
            return wrong
        at = preamble.padded(at + chunk.SIZE + header.stored, reader.alignment)
        sequence += 1
    if at + FOOTER > size or sequence == 0:
        return Wrong(min(at, size), size, "the end", CUT)
    return _at_the_end(reader, at, size)


def _no_magic(start: bytes, size: int) -> Wrong | None:
    """Line ends that a transfer as text changed leave the first letters."""
    if start[:4] == MAGIC[:4]:
        return Wrong(4, 8, "line ends of the magic", "the file was sent as text, not as binary")
    return Wrong(0, size, "no container", "another kind of file") if start else None


def _in_front(error: ContainerError, start: bytes, source: ByteSource) -> Wrong:
    size = source.size or 0
    if error.error_id == "E305":
        return Wrong(8, 16, "version and features", "a newer kvq wrote it")
    length = int.from_bytes(start[20:24], "little")
    end = preamble.SIZE + length
    whole = source.read(size - len(END_MAGIC), len(END_MAGIC)) == END_MAGIC
    if error.error_id == "E302" and not whole:
        return Wrong(size, end, "the header", CUT)
    if error.error_id in ("E302", "E303"):
        return Wrong(0, min(end, size), "preamble and header", DAMAGE)
    # Its digest holds, so padding or what it says is wrong.
    first = preamble.padded(end, 1 << start[24]) if start[24] < MAX_LOG2 else end
    return Wrong(0, min(first, size), "preamble, header and padding", f"{DAMAGE}, or {MADE}")


def _in_chunk(
    reader: Reader, at: int, sequence: int, size: int
) -> tuple[Wrong | None, ChunkHeader | None]:
    """What is wrong with the chunk at an offset, and its header if it can be believed."""
    raw = reader.source.read(at, chunk.SIZE)
    try:
        header = chunk.read_chunk_header(raw, at)
    except ContainerError as error:
        cause = "a newer kvq wrote it" if error.error_id == "E305" else DAMAGE
        stop = at + chunk.SIZE
        return Wrong(at, stop, f"the header of chunk {sequence}", cause), None
    stop = at + chunk.SIZE + header.stored
    if stop > size:
        return Wrong(size, stop, f"{_name(header, None)} ends beyond the file", CUT), None
    payload = memoryview(reader.source.read(at + chunk.SIZE, header.stored))
    what = _name(header, reader, payload)
    if header.sequence != sequence:
        cause = f"chunk {sequence} is due: one was moved, left out or put in"
        return Wrong(at, stop, what, cause), header
    try:
        chunk.check_payload(header, reader.digest, payload)
    except ContainerError:
        return Wrong(at, stop, what, _cause(header, payload)), header
    padding = reader.source.read(stop, preamble.padded(stop, reader.alignment) - stop)
    if any(padding):
        return Wrong(stop, stop + len(padding), f"padding behind {what}", DAMAGE), header
    return None, header


def _cause(header: ChunkHeader, payload: memoryview) -> str:
    """Planes that do not decode were hit; those that do may be whole, and of another file."""
    size = {chunk.PAGE: PAGE_RECORD, chunk.TABL: PIECE_RECORD, chunk.TENS: PIECE_RECORD}
    if header.type not in size:
        return DAMAGE
    try:
        table = coded.read_table(header.type, size[header.type], payload, header.offset)
        coded.decode(table, payload, Decoder(), header.offset)
    except KvqError:
        return DAMAGE
    return f"{DAMAGE}, {FOREIGN}"


def _name(header: ChunkHeader, reader: Reader | None, payload: memoryview | None = None) -> str:
    """The chunk in words of the cache, as far as its record can be read."""
    name = f"chunk {header.sequence}, {header.type.decode()}"
    if reader is None or payload is None:
        return name
    manifest = reader.manifest
    try:
        if header.type == chunk.PAGE:
            key = read_page_record(bytes(payload[:PAGE_RECORD]), header.offset).key
            heads = list(manifest.head_sets[key.head_set])
            place = f"{key.role.word}, batch {key.batch}, {key.layer_words}, heads {heads}"
            return f"{name}: {place}, tokens {key.start} to {key.stop}"
        if header.type == chunk.TENS:
            number, at = read_piece_record(bytes(payload[:PIECE_RECORD]), header.offset)
            return f'{name}: tensor "{manifest.tensors[number].name}" from byte {at}'
    except (KvqError, IndexError):
        return f"{name}, its record damaged"
    return name


def _at_the_end(reader: Reader, at: int, size: int) -> Wrong:
    """All chunks hold: what is left is the footer, and what chunks say of each other."""
    wrong, header = _in_chunk(reader, at, 0, size)
    if header is not None or (wrong is not None and wrong.cause == CUT):
        return Wrong(size, size + FOOTER, "the end", CUT)  # so many bytes of another chunk
    try:
        reader.footer()
    except ContainerError:
        return Wrong(at, size, "the footer", DAMAGE)
    return Wrong(reader.first_chunk, size, "what chunks say", MADE)

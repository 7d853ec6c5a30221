"""reader: a second reader of `.kvq`, written from `formats/` alone, without kvq_cli.

`read` takes bytes or a path, checks everything formats/container.md asks a reader to check,
and decodes every page. Any bytes give a Container or Refused. It is written to be compared
with the spec line by line, not to be fast, and holds the whole file in memory.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3
from reference.decoders import CODECS, WIDTHS, fits, tables_of
from reference.header import (
    BITS,
    Header,
    Slab,
    canonical,
    head_tensors,
    listed,
    read_header,
    sources,
    tagged,
)
from reference.quality import check_quality
from reference.refused import Refused, need
from reference.transforming import Place

__all__ = ["Container", "Page", "Refused", "read"]

MAGIC, END = bytes.fromhex("894B56510D0A1A0A"), bytes.fromhex("0A1A0A0D51564B89")
RECORDS = {b"HEAD": 8, b"TABL": 16, b"TENS": 16, b"PAGE": 32}
PIECE, LEAF_PAGES, WINDOW = 2**22, 4096, 2**23
FORCED = range(1, 6)  # reasons why a page is raw although its rule names another codec


@dataclass(frozen=True)
class Chunk:
    type: bytes
    at: int
    stored: int
    packed: int
    sequence: int
    digest: bytes
    payload: bytes


@dataclass(frozen=True)
class Page:
    """A page's record, and its bits, (layers * H, T, D), as decoded."""

    role: int
    reason: int
    codec: int
    batch: int
    layer: int
    layers: int
    start: int
    tokens: int
    head_set: int
    bits: Any = None


@dataclass(frozen=True)
class Container:
    header: Header
    content_root: bytes
    file_root: bytes
    heads: list[bytes]  # of each source file what no tensor holds
    tensors: dict[tuple[int, str], bytes]  # bits of every source tensor by file and name
    pages: list[Page]

    def named(self) -> dict[str, bytes]:
        """The tensors by name, in a folder behind the name of their file."""
        names = [one["name"] for one in sources(self.header)]
        return {
            name if names[file] is None else f"{names[file]}/{name}": bits
            for (file, name), bits in self.tensors.items()
        }

    def files(self) -> dict[str, bytes]:
        """All source files by name; one file has the name ""."""
        names = [one["name"] or "" for one in sources(self.header)]
        return {name: self.source(number) for number, name in enumerate(names)}

    def source(self, file: int = 0) -> bytes:
        """A source file; the original, byte for byte, if every codec is lossless."""
        mine = (bits for (number, _), bits in self.tensors.items() if number == file)
        return self.heads[file] + b"".join(mine)


def read(source: bytes | Path, given: Mapping[str, bytes] | None = None) -> Container:
    """`given` are tables that the container refers to, by digest."""
    data = source.read_bytes() if isinstance(source, Path) else bytes(source)
    header, header_digest, alignment, at = read_start(data)
    walk = Walk(header, given or {})
    chunks: list[Chunk] = []
    while not walk.done:
        chunk, at = read_chunk(data, at, len(chunks), header_digest, alignment)
        chunks.append(chunk)
        walk.take(chunk)
    content = tagged("kvq/v1/content-json", canonical(header.content))
    content_root = tagged("kvq/v1/content", content, *walk.packed_digests)
    file_root = tagged("kvq/v1/file", header_digest, *(chunk.digest for chunk in chunks))
    check_footer(data, at, chunks, len(walk.pages), content_root + file_root)
    tensors = restore(header, walk)
    return Container(header, content_root, file_root, walk.heads, tensors, walk.pages)


def read_start(data: bytes) -> tuple[Header, bytes, int, int]:
    """Preamble and header: header, its digest, the alignment, where the first chunk is."""
    need(data[:8] == MAGIC, "not a kvq container")
    need(len(data) >= 10 and data[8:10] == b"\1\0", "another major version")
    need(len(data) >= 64, "shorter than a preamble")
    _, incompatible, _, length, log2, zero = struct.unpack("<HIIIB7s", data[10:32])
    need(incompatible < 4, f"unknown incompatible features {incompatible:#x}")
    need(2 <= length <= 2**20 and 6 <= log2 <= 21 and zero == bytes(7), "preamble field")
    text = data[64 : 64 + length]
    need(len(text) == length, "header is cut off")
    digest = tagged("kvq/v1/header", data[:32], text)
    need(digest == data[32:64], "header digest does not hold")
    header = read_header(text, 1 << log2, incompatible)
    return header, digest, 1 << log2, padded(data, 64 + length, 1 << log2)


def padded(data: bytes, at: int, alignment: int) -> int:
    """Where the zero padding that starts here ends."""
    stop = at + -at % alignment
    need(stop <= len(data), "padding is cut off")
    need(not any(data[at:stop]), "padding is not zero")
    return stop


def read_chunk(
    data: bytes, at: int, sequence: int, header_digest: bytes, alignment: int
) -> tuple[Chunk, int]:
    start = data[at : at + 64]
    need(len(start) == 64, "chunk header is cut off")
    kind, zero, stored, packed, number, crc = struct.unpack("<4s4sQQII", start[:32])
    need(zlib.crc32(start[:28]) == crc, "CRC of a chunk header does not hold")
    need(kind.isalpha() and zero == bytes(4), "chunk type, or zero")
    need(may_take(kind, stored, packed, number), "chunk is too long")
    need(number == sequence, "sequence number")
    payload = data[at + 64 : at + 64 + stored]
    need(len(payload) == stored, "payload is cut off")
    digest = tagged("kvq/v1/chunk", header_digest, start[:32], blake3(payload).digest())
    need(digest == start[32:], "chunk digest does not hold")
    chunk = Chunk(kind, at, stored, packed, number, digest, payload)
    return chunk, padded(data, at + 64 + stored, alignment)


def may_take(kind: bytes, stored: int, packed: int, sequence: int) -> bool:
    """The limits of lengths by type."""
    most = {b"HEAD": 2**23 + 8, b"TABL": 2**22, b"TENS": 2**22, b"PAGE": 2**27}.get(kind)
    if most is not None:
        return packed <= most and stored <= min(packed + 2**16, 2**27)
    if kind == b"INDX":
        return stored == packed and stored <= 32 + max(2**19, 64 * sequence)
    return max(stored, packed) <= (2**22 if kind[0] >= 97 else 2**27)


def check_footer(data: bytes, at: int, chunks: list[Chunk], pages: int, roots: bytes) -> None:
    footer = data[at:]
    need(len(footer) == 128, "what follows the root is not a footer of 128 bytes")
    need(footer[100:] == bytes(20) + END, "end of the footer")
    need(zlib.crc32(footer[:96]) == int.from_bytes(footer[96:100], "little"), "footer CRC")
    facts = struct.pack("<QQIIQ", chunks[-1].at, len(data), len(chunks), 0, pages)
    need(footer[:32] == facts, "footer differs from the file")
    need(footer[32:96] == roots, "a root does not hold")


class Walk:
    """What the chunks said so far, and what may therefore come next."""

    def __init__(self, header: Header, given: Mapping[str, bytes]) -> None:
        self.header, self.given = header, given
        self.lost = header.content.get("partial", {"files": [], "tables": [], "tensors": []})
        self.heads = [b""] * len(sources(header))
        self.due = [at for at in range(len(self.heads)) if at not in self.lost["files"]]
        tensors = header.content["tensors"]
        self.pieces = {at: bytearray() for at, one in enumerate(tensors) if one["rows"] is None}
        for at in self.pieces:
            self.pass_lost(at)
        self.tables = [bytearray() for _ in header.content["tables"]]
        elsewhere = header.storage.get("referenced", [])
        self.elsewhere = {
            at for at, one in enumerate(header.content["tables"]) if one["digest"] in elsewhere
        }
        self.pages: list[Page] = []
        # By role, batch entry, first layer and layers: the next token of each head.
        self.covered: dict[tuple[int, int, int, int], list[int]] = {}
        self.held: set[tuple[int, int, int]] = set()  # layers that groups of pages hold
        self.waiting: list[tuple[bytes, bytes]] = []  # entries without their source digest; it
        self.leaves: list[bytes] = []
        self.packed_digests: list[bytes] = []
        self.done = False

    @property
    def partial(self) -> bool:
        return "partial" in self.header.content

    def take(self, chunk: Chunk) -> None:
        need((chunk.type == b"HEAD") == bool(self.due), "HEAD chunks are not the first ones")
        steps = {b"HEAD": self.take_head, b"TABL": self.take_table}
        steps |= {b"TENS": self.take_piece, b"PAGE": self.take_page}
        if chunk.type == b"INDX":
            self.take_index(chunk)
        elif chunk.type in steps:
            record, table = chunk.payload[: RECORDS[chunk.type]], read_table(chunk)
            steps[chunk.type](chunk, record, table)
        else:
            need(chunk.type[0] >= 97, f"unknown chunk type {chunk.type!r}")
            if chunk.type == b"qual":
                check_quality(chunk.payload)

    def take_head(self, chunk: Chunk, record: bytes, table: Table) -> None:
        file = self.due.pop(0)
        need(struct.unpack("<II", record) == (file, 0), "HEAD record")
        need(len(table.packed) == 1 and table.packed[0] <= 8 + 2**23, "HEAD planes")
        need(sum(map(len, self.heads)) + table.packed[0] <= 2**25, "HEADs together")
        (head,) = table.planes()
        self.heads[file] = head
        digest = sources(self.header)[file]["digest"]
        if digest is not None:
            need(text(head) == digest, "digest of a file does not hold")
            return
        need(len(head) >= 8 and int.from_bytes(head[:8], "little") == len(head) - 8, "HEAD length")
        need(head_tensors(head[8:]) == listed(self.header, file), "HEAD lists other tensors")

    def take_table(self, chunk: Chunk, record: bytes, table: Table) -> None:
        number, zero, offset = struct.unpack("<IIQ", record)
        need(zero == 0 and number == self.next_table(), "TABL record or order")
        held, stated = self.tables[number], self.header.content["tables"][number]
        left = size_of(stated) - len(held)
        need(offset == len(held) and table.packed == (min(PIECE, left),), "TABL offset or planes")
        held += table.planes()[0]
        need(left > PIECE or text(held) == stated["digest"], "digest of a table does not hold")

    def next_table(self) -> int | None:
        """The first table that is not whole, lost or elsewhere; None if there is none."""
        sizes = map(size_of, self.header.content["tables"])
        held = enumerate(zip(self.tables, sizes, strict=True))
        short = (at for at, (table, size) in held if len(table) < size)
        return next((at for at in short if at not in {*self.lost["tables"], *self.elsewhere}), None)

    def pass_lost(self, number: int) -> None:
        """Zeros where the next pieces of a tensor are lost."""
        piece, size = self.pieces[number], self.header.content["tensors"][number]["nbytes"]
        while [number, len(piece)] in self.lost["tensors"]:
            piece += bytes(min(PIECE, size - len(piece)))

    def take_piece(self, chunk: Chunk, record: bytes, table: Table) -> None:
        number, zero, offset = struct.unpack("<IIQ", record)
        need(zero == 0 and number in self.pieces, "TENS record")
        need(not self.pages and self.next_table() is None, "TENS after PAGE, or before TABL")
        sizes = {at: self.header.content["tensors"][at]["nbytes"] for at in self.pieces}
        unfinished = [at for at in self.pieces if len(self.pieces[at]) < sizes[at]]
        need(unfinished[:1] == [number] and offset == len(self.pieces[number]), "TENS order")
        width = max(1, BITS[self.header.content["tensors"][number]["dtype"]] // 8)
        size = min(PIECE, sizes[number] - offset)
        need(table.packed == (size // width,) * width, "TENS planes")
        places = [np.frombuffer(plane, np.uint8) for plane in table.planes()]
        self.pieces[number] += np.stack(places, axis=1).tobytes()
        self.pass_lost(number)
        self.packed_digests.append(table.digest())

    def take_page(self, chunk: Chunk, record: bytes, table: Table) -> None:
        need(self.next_table() is None, "PAGE before TABL")
        need(len(self.waiting) < LEAF_PAGES, "no leaf after 4,096 pages")
        need(len(self.pages) == len(self.leaves) * LEAF_PAGES + len(self.waiting), "short leaf")
        page = Page(*struct.unpack("<BBHIIIQII", record))
        slab, heads = self.place(page)
        codec = self.header.content["codecs"][page.codec]
        decoder = CODECS[codec["name"], codec["revision"]]
        need(page.reason == 0 or codec["name"] == "raw", "a reason, but not raw")
        spec = (page.layers * len(heads), page.tokens, slab.channels)
        need(np.prod(spec, dtype=object) * WIDTHS[slab.dtype] <= 2**26, "page is too long")
        need(fits(decoder, codec["params"], spec, slab.dtype, table.packed), "plane sizes")
        lost = [self.header.content["tables"][at] for at in self.lost["tables"]]
        need(not any(one in lost for one in tables_of(codec)), "page of a codec without its table")
        arrays = [self.array(one) for one in tables_of(codec)]
        told = {"place": self.place_of(page, slab)} if hasattr(decoder, "placed") else {}
        bits = decoder.decode(codec["params"], spec, slab.dtype, table.planes(), *arrays, **told)
        self.packed_digests.append(table.digest())
        self.pages.append(Page(*struct.unpack("<BBHIIIQII", record), bits))
        entry = struct.pack("<QQQ", chunk.at, chunk.stored, chunk.packed) + record
        entry += struct.pack("<II", chunk.sequence, 0) + table.digest()
        exact = codec["name"] in ("raw", "lossless")
        source = blake3(bits.tobytes()).digest() if exact else b""
        self.waiting.append((entry, source))

    def array(self, stated: Any) -> Any:
        """The table of the header that is stated so."""
        number = self.header.content["tables"].index(stated)
        data = bytes(self.tables[number])
        if number in self.elsewhere:
            need(stated["digest"] in self.given, "a table that lies elsewhere")
            data = self.given[stated["digest"]]
            need(text(data) == stated["digest"], "digest of a table does not hold")
        return np.frombuffer(data, stated["dtype"]).reshape(stated["shape"])

    def place_of(self, page: Page, slab: Slab) -> Place:
        """Where a page lies in the text: a layer that holds fewer tokens holds the last ones."""
        longest = max(each.tokens for each in self.header.slabs.values())
        first = self.header.content["token_offset"] + longest - slab.tokens + page.start
        return Place(page.role, page.layer, page.layers, first)

    def place(self, page: Page) -> tuple[Slab, list[int]]:
        """The slab and heads that a page names; Refused if it is not due there."""
        content = self.header.content
        need(page.role < 2 and 0 < page.layers <= 4096 and page.tokens > 0, "PAGE record")
        need(page.reason == 0 or page.reason in FORCED, "unknown reason")
        need(page.codec < len(content["codecs"]), "codec that the header does not have")
        need(page.head_set < len(content["head_sets"]), "head set that the header does not have")
        slab = self.header.slabs.get((page.role, page.layer))
        need(slab is not None, "layer that the header does not have")
        layers = range(page.layer, page.layer + page.layers)
        alike = all(self.header.slabs.get((page.role, layer)) == slab for layer in layers)
        need(alike, "layers of unlike shape in one page")
        heads = content["head_sets"][page.head_set]
        need(page.batch < slab.batch and heads[-1] < slab.heads, "batch entry or head")
        need(page.start + page.tokens <= slab.tokens, "tokens past the end")
        need(not self.pages or order(self.pages[-1]) < order(page), "page order")
        group = (page.role, page.batch, page.layer, page.layers)
        if group not in self.covered:
            rows = {(page.role, page.batch, layer) for layer in layers}
            need(self.held.isdisjoint(rows), "a layer in two groups of pages")
            self.held |= rows
        # Pages of a group ascend by first token, so each head's pages must lie end to end.
        nexts = self.covered.setdefault(group, [0] * slab.heads)
        for head in heads:
            need(nexts[head] <= page.start, "pages overlap")
            need(nexts[head] == page.start or self.partial, "pages leave tokens out")
            nexts[head] = page.start + page.tokens
        return slab, heads

    def take_index(self, chunk: Chunk) -> None:
        need(chunk.packed == chunk.stored >= 32, "INDX lengths")
        kind, count, first, zero = struct.unpack("<IIQ16s", chunk.payload[:32])
        need(zero == bytes(16) and kind < 2, "INDX start")
        body = chunk.payload[32:]
        if kind == 1:
            need(not self.waiting and first == 0 and count == len(self.leaves), "root start")
            need(body == b"".join(self.leaves), "root differs from the leaves")
            self.done = True
            self.check_complete()
            return
        need(0 < count == len(self.waiting) and len(body) == 128 * count, "leaf count")
        need(first == len(self.pages) - count, "leaf's first page")
        for at, (entry, source) in enumerate(self.waiting):
            need(body[128 * at : 128 * at + 96] == entry, "leaf differs from its pages")
            digest = body[128 * at + 96 : 128 * at + 128]
            known = digest if digest != bytes(32) or not self.partial else b""
            need(b"" in (source, known) or source == known, "source digest does not hold")
        self.waiting = []
        leaf = struct.pack("<QQQII", chunk.at, chunk.stored, first, count, chunk.sequence)
        self.leaves.append(leaf + chunk.digest)

    def check_complete(self) -> None:
        need(self.next_table() is None, "TABL missing")
        for number, piece in self.pieces.items():
            need(len(piece) == self.header.content["tensors"][number]["nbytes"], "TENS missing")
        if self.partial:
            return
        slabs = self.header.slabs
        need(len(self.held) == sum(slab.batch for slab in slabs.values()), "pages missing")
        for (role, _, layer, _), nexts in self.covered.items():
            need(set(nexts) == {slabs[role, layer].tokens}, "pages missing")


def size_of(table: Any) -> int:
    return math.prod(table["shape"]) * np.dtype(table["dtype"]).itemsize


def text(data: bytes) -> str:
    return "blake3:" + blake3(data).hexdigest()


def order(page: Page) -> tuple[int, ...]:
    return page.role, page.batch, page.layer, page.start, page.head_set


@dataclass(frozen=True)
class Table:
    """A coded payload: what its plane table says, and the stored planes."""

    start: bytes  # type, record, count and zero, as they are digested
    entropy: tuple[int, ...]
    packed: tuple[int, ...]
    stored: tuple[bytes, ...]

    def planes(self) -> list[bytes]:
        coded = zip(self.entropy, self.packed, self.stored, strict=True)
        return [unzip(plane, packed) if kind else plane for kind, packed, plane in coded]

    def digest(self) -> bytes:
        lengths = struct.pack(f"<{len(self.packed)}Q", *self.packed)
        return tagged("kvq/v1/packed", self.start, lengths, *self.planes())


def read_table(chunk: Chunk) -> Table:
    payload, at = chunk.payload, RECORDS[chunk.type]
    need(len(payload) >= at + 8, "payload is shorter than its record")
    count, zero = struct.unpack("<II", payload[at : at + 8])
    need(count <= 64 and zero == 0 and len(payload) >= at + 8 + 24 * count, "plane count")
    entries = list(struct.iter_unpack("<IIQQ", payload[at + 8 : at + 8 + 24 * count]))
    at += 8 + 24 * count
    planes = []
    for entropy, zero, stored, packed in entries:
        need(entropy < 2 and zero == 0 and (entropy or stored == packed), "plane entry")
        planes.append(payload[at : at + stored])
        at += stored
    need(at == len(payload), "planes do not fill the payload")
    need(sum(packed for *_, packed in entries) == chunk.packed, "packed length of the chunk")
    start = chunk.type + payload[: RECORDS[chunk.type] + 8]
    entropies, packed = (tuple(entry[at] for entry in entries) for at in (0, 3))
    return Table(start, entropies, packed, tuple(planes))


def unzip(frame: bytes, packed: int) -> bytes:
    """The bytes of a zstd frame that says `packed`; everything is checked before decoding."""
    need(frame[:4] == b"\x28\xb5\x2f\xfd", "not a zstd frame")
    try:
        facts = zstandard.get_frame_parameters(frame)
        need(facts.content_size == packed, "zstd content size")
        need(facts.dict_id == 0 and facts.window_size <= WINDOW, "zstd dictionary or window")
        frames = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        plane = frames.decompress(frame)
    except zstandard.ZstdError as error:
        raise Refused(f"zstd: {error}") from error
    need(frames.eof and not frames.unused_data, "zstd frame does not end where its plane ends")
    need(len(plane) == packed, "zstd content size")
    return plane


def restore(header: Header, walk: Walk) -> dict[tuple[int, str], bytes]:
    """The bits of every source tensor: pieces joined, pages put into their places."""
    tensors = {}
    for number, tensor in enumerate(header.content["tensors"]):
        name = tensor["file"], tensor["name"]
        tensors[name] = bytes(walk.pieces.get(number, b""))
        if tensor["rows"] is not None:
            flat = np.zeros(math.prod(tensor["shape"]), f"<u{WIDTHS[tensor['dtype']]}")
            for at, role in enumerate(tensor["rows"]["roles"]):
                put_rows(flat, at, ("key", "value").index(role), tensor["rows"], header, walk)
            tensors[name] = flat.tobytes()
    return tensors


def put_rows(flat: Any, at: int, role: int, rows: Any, header: Header, walk: Walk) -> None:
    """The pages of one role into the elements of a tensor."""
    order = rows["axes"].split(",")[-1 if at else 0]
    view = flat.reshape([rows["lengths"][letter] for letter in order])
    missing = [letter for letter in "BLRHTtud" if letter not in order]
    view = view.reshape(view.shape + (1,) * len(missing))
    axes = list(order) + missing
    view = view.transpose([axes.index(letter) for letter in "RBLHTtuDd"])[at]
    mine = range(rows["first_head"], rows["first_head"] + view.shape[2])
    for page in walk.pages:
        heads = header.content["head_sets"][page.head_set]
        first = page.layer - rows["first_layer"]
        layers = range(first, first + page.layers)
        for place, (layer, head) in enumerate((layer, head) for layer in layers for head in heads):
            there = page.role == role and 0 <= layer < view.shape[1] and head in mine
            for token in range(page.tokens if there else 0):
                row = np.unravel_index(page.start + token, view.shape[3:6])
                place_of = (page.batch, layer, head - mine[0], *row)
                view[place_of] = page.bits[place, token].reshape(view.shape[6:])

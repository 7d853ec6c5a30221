"""surgery: containers taken apart, changed in one place, and put together again.

Written from formats/container.md, without kvq_cli and without the reference reader.

A body is plain JSON data. Whatever a body does not state is computed from the rest, digests,
CRCs, lengths, index and roots included, so a lie that is told in one place reaches the check
that is meant to find it. formats/vectors/container/README.md lists the members of a body.

    operate(container, [{"set": "/chunks/1/sequence", "to": 7}])
"""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import zstandard
from blake3 import blake3

END = "0a1a0a0d51564b89"
PREAMBLE = "magic:8s major:H minor:H incompatible:I compatible:I length:I log2:B zero:7s"
RECORDS = {
    "HEAD": "source:I zero:I",
    "TABL": "table:I zero:I offset:Q",
    "TENS": "tensor:I zero:I offset:Q",
    "PAGE": "role:B reason:B codec:H batch:I layer:I layers:I start:Q tokens:I head_set:I",
}
ENTRY = "offset:Q stored:Q packed:Q record:32s sequence:I zero:I packed_digest:32s source:32s"
LEAF = "offset:Q stored:Q first:Q count:I sequence:I digest:32s"
FOOTER = "root:Q length:Q chunks:I zero:I pages:Q content_root:32s file_root:32s"
ZERO = "00" * 32


def fields(layout: str, values: dict[str, Any]) -> bytes:
    """The named values in a layout of `name:struct code`."""
    names, codes = zip(*(field.split(":") for field in layout.split()), strict=True)
    ordered = [values[name] for name in names]
    plain = [bytes.fromhex(value) if isinstance(value, str) else value for value in ordered]
    return struct.pack("<" + "".join(codes), *plain)


def named(layout: str, data: bytes) -> dict[str, Any]:
    names, codes = zip(*(field.split(":") for field in layout.split()), strict=True)
    values = struct.unpack("<" + "".join(codes), data)
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    return dict(zip(names, plain, strict=True))


def tagged(tag: str, *parts: bytes) -> bytes:
    return blake3(b"\0".join([tag.encode(), b""]) + b"".join(parts)).digest()


def canonical(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.encode()


def take_apart(data: bytes) -> dict[str, Any]:
    """The body of a valid container: nothing stated that can be computed."""
    preamble = named(PREAMBLE, data[:32])
    length, alignment = preamble.pop("length"), 1 << preamble["log2"]
    at = 64 + length + -(64 + length) % alignment
    header = json.loads(data[64 : 64 + length])
    chunks, last = [], int.from_bytes(data[-128:-120], "little")
    while at <= last:
        kind, stored = data[at : at + 4].decode(), int.from_bytes(data[at + 8 : at + 16], "little")
        chunks.append(part(kind, data[at + 64 : at + 64 + stored]))
        at += 64 + stored + -(64 + stored) % alignment
    sources = [
        payload[start + 96 : start + 128].hex()
        for payload in (bytes.fromhex(one["leaf"]) for one in chunks if one.get("kind") == 0)
        for start in range(32, len(payload), 128)
    ]
    for page, source in zip((one for one in chunks if one["type"] == "PAGE"), sources, strict=True):
        page["source"] = source
    for one in chunks:
        one.pop("leaf", None)
    return {"preamble": preamble, "header": header, "chunks": chunks, "footer": {}}


def part(kind: str, payload: bytes) -> dict[str, Any]:
    if kind == "INDX":
        return {"type": kind, "kind": payload[0], "leaf": payload.hex()}
    if kind not in RECORDS:
        return {"type": kind, "payload": payload.hex()}
    size = len(fields(RECORDS[kind], dict.fromkeys(names_of(RECORDS[kind]), 0)))
    count = int.from_bytes(payload[size : size + 4], "little")
    at, planes = size + 8 + 24 * count, []
    for number in range(count):
        start = size + 8 + 24 * number
        entropy, _, stored, _ = struct.unpack("<IIQQ", payload[start : start + 24])
        planes.append({"entropy": entropy, "bytes": payload[at : at + stored].hex()})
        at += stored
    return {"type": kind, "record": named(RECORDS[kind], payload[:size]), "planes": planes}


def names_of(layout: str) -> list[str]:
    return [field.split(":")[0] for field in layout.split()]


def put_together(body: dict[str, Any]) -> bytes:
    """The file of a body."""
    text = canonical(body["header"])
    for old, new in body.get("text", []):
        if old.encode() not in text:
            raise ValueError(f"{old!r} is not in the header")
        text = text.replace(old.encode(), new.encode(), 1)
    preamble = {"length": len(text)} | body["preamble"]
    start = fields(PREAMBLE, preamble)
    header_digest = tagged("kvq/v1/header", start, text)
    out = bytearray(start)
    out += bytes.fromhex(preamble["digest"]) if "digest" in preamble else header_digest
    alignment = 1 << min(preamble["log2"], 21)
    out += text
    out += padding(len(out), alignment, body)
    state = State(header_digest, alignment)
    for chunk in body["chunks"]:
        state.add(chunk, out)
    out += footer(body, state, len(out))
    return bytes(out) + bytes.fromhex(body.get("tail", ""))


def padding(at: int, alignment: int, owner: dict[str, Any]) -> bytes:
    return bytes.fromhex(owner["padding"]) if "padding" in owner else bytes(-at % alignment)


class State:
    """What the chunks so far leave for index, footer and roots."""

    def __init__(self, header_digest: bytes, alignment: int) -> None:
        self.header_digest, self.alignment = header_digest, alignment
        self.sequence = self.pages = self.root = 0
        self.waiting: list[dict[str, Any]] = []
        self.leaves: list[dict[str, Any]] = []
        self.packed_digests: list[bytes] = []
        self.digests: list[bytes] = []

    def add(self, chunk: dict[str, Any], out: bytearray) -> None:
        at = len(out)
        payload, packed = self.payload(chunk)
        facts = {"stored": len(payload), "packed": packed, "sequence": self.sequence} | chunk
        start = facts["type"].encode("latin-1")
        start += struct.pack("<IQQ", facts.get("zero", 0), facts["stored"], facts["packed"])
        start += struct.pack("<I", facts["sequence"])
        start += struct.pack("<I", facts.get("crc", zlib.crc32(start)))
        bound = bytes.fromhex(chunk.get("bound_to", self.header_digest.hex()))
        digest = tagged("kvq/v1/chunk", bound, start, blake3(payload).digest())
        digest = bytes.fromhex(chunk.get("digest", digest.hex()))
        out += start + digest + payload
        out += padding(len(out), self.alignment, chunk)
        self.note(facts | {"offset": at, "digest": digest.hex()})
        self.digests.append(digest)
        self.sequence += 1

    def payload(self, chunk: dict[str, Any]) -> tuple[bytes, int]:
        if "payload" in chunk:
            payload = bytes.fromhex(chunk["payload"])
            return payload, len(payload)
        if chunk["type"] == "INDX":
            payload = self.index(chunk)
            return payload, len(payload)
        record, planes = fields(RECORDS[chunk["type"]], chunk["record"]), chunk["planes"]
        unpacked = [unzip(plane) for plane in planes]
        sizes = [plane.get("packed", len(one)) for plane, one in zip(planes, unpacked, strict=True)]
        count = struct.pack("<II", chunk.get("count", len(planes)), chunk.get("reserved", 0))
        table, stored = b"", b""
        for plane, size in zip(planes, sizes, strict=True):
            data = bytes.fromhex(plane["bytes"])
            length = plane.get("stored", len(data))
            table += struct.pack("<IIQQ", plane["entropy"], plane.get("zero", 0), length, size)
            stored += data
        packed = chunk["type"].encode() + record + count
        packed += b"".join(struct.pack("<Q", size) for size in sizes) + b"".join(unpacked)
        digest = tagged("kvq/v1/packed", packed).hex()
        self.packed_digest = chunk.get("packed_digest", digest)
        tail = bytes.fromhex(chunk.get("tail", ""))
        return record + count + table + stored + tail, sum(sizes) & (2**64 - 1)

    def index(self, chunk: dict[str, Any]) -> bytes:
        root = chunk["kind"] == 1
        layout, entries = (LEAF, self.leaves) if root else (ENTRY, self.waiting)
        entries = entries[: len(entries) - chunk.get("short", 0)]
        facts = {"count": len(entries), "first": 0 if root else self.pages - len(self.waiting)}
        facts |= {"zero16": "00" * 16} | chunk
        payload = fields("kind:I count:I first:Q zero16:16s", facts)
        for number, entry in enumerate(entries):
            payload += fields(layout, entry | chunk.get("entries", {}).get(str(number), {}))
        return payload + bytes.fromhex(chunk.get("tail", ""))

    def note(self, facts: dict[str, Any]) -> None:
        kind = facts["type"]
        if kind in ("TENS", "PAGE") and "payload" not in facts:
            self.packed_digests.append(bytes.fromhex(self.packed_digest))
        if kind == "PAGE" and "payload" not in facts:
            record = fields(RECORDS["PAGE"], facts["record"]).hex()
            entry = {"record": record, "zero": 0, "packed_digest": self.packed_digest}
            names = ("offset", "stored", "packed", "sequence", "source")
            self.waiting.append(entry | {name: facts.get(name, ZERO) for name in names})
            self.pages += 1
        if kind == "INDX" and facts.get("kind") == 0:
            first, count = self.pages - len(self.waiting), len(self.waiting)
            leaf = {name: facts[name] for name in ("offset", "stored", "sequence", "digest")}
            self.leaves.append({"first": first, "count": count} | leaf)
            self.waiting = []
        self.root = facts["offset"]


def unzip(plane: dict[str, Any]) -> bytes:
    """What a plane unpacks to; what is no frame unpacks to nothing."""
    data = bytes.fromhex(plane["bytes"])
    if plane["entropy"] != 1:
        return data
    try:
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    except zstandard.ZstdError:
        return b""


def footer(body: dict[str, Any], state: State, at: int) -> bytes:
    content = tagged("kvq/v1/content-json", canonical(body["header"].get("content")))
    facts = {"root": state.root, "length": at + 128, "chunks": state.sequence, "zero": 0}
    facts |= {"pages": state.pages}
    facts["content_root"] = tagged("kvq/v1/content", content, *state.packed_digests).hex()
    facts["file_root"] = tagged("kvq/v1/file", state.header_digest, *state.digests).hex()
    facts |= {"zero20": "00" * 20, "magic": END} | body["footer"]
    start = fields(FOOTER, facts)
    crc = facts.get("crc", zlib.crc32(start))
    return start + fields("crc:I zero20:20s magic:8s", facts | {"crc": crc})


def operate(
    data: bytes, edits: list[dict[str, Any]], others: Mapping[str, bytes] | None = None
) -> bytes:
    """The container after the edits of a case, as formats/vectors/container/README.md has them."""
    file_edits = {"flip", "truncate", "append", "insert", "remove", "pieces", "reseal"}
    inner = [edit for edit in edits if not file_edits & set(edit)]
    base = data
    if inner:
        body = take_apart(data)
        for edit in inner:
            cut(body, edit)
        data = put_together(body)
    for edit in edits:
        if "pieces" in edit:
            twin = {"twin": operate(base, edit["twin"])} if "twin" in edit else {}
            data = joined(data, edit["pieces"], {**(others or {}), **twin})
        elif edit not in inner:
            data = alter(data, edit)
    return data


def places(data: bytes) -> dict[int | str, slice]:
    """Where a valid container has its header, each chunk by number, and its footer."""
    alignment = 1 << data[24]
    at = 64 + int.from_bytes(data[20:24], "little")
    at += -at % alignment
    found: dict[int | str, slice] = {"header": slice(0, at), "all": slice(None)}
    while at < len(data) - 128:
        size = 64 + int.from_bytes(data[at + 8 : at + 16], "little")
        size += -size % alignment
        found[len(found) - 2] = slice(at, at + size)
        at += size
    return {**found, "footer": slice(at, None)}


def joined(data: bytes, pieces: list[Any], others: Mapping[str, bytes]) -> bytes:
    """Pieces of this file, or of others, byte for byte as they lie there."""
    out = b""
    for piece in pieces:
        source, place = (data, piece) if not isinstance(piece, dict) else _taken(piece, others)
        out += source[places(source)[place]]
    return out


def _taken(piece: dict[str, Any], others: Mapping[str, bytes]) -> tuple[bytes, int | str]:
    return others[piece["of"]], piece["take"]


def resealed(data: bytes, edit: dict[str, Any]) -> bytes:
    """Bytes of a chunk overwritten and its CRC made anew; its digest too, where asked."""
    start, changed = places(data)[edit["reseal"]].start, bytearray(data)
    new = bytes.fromhex(edit["hex"])
    changed[start + edit["at"] : start + edit["at"] + len(new)] = new
    changed[start + 28 : start + 32] = struct.pack("<I", zlib.crc32(changed[start : start + 28]))
    if edit.get("digest"):
        size = int.from_bytes(changed[start + 8 : start + 16], "little")
        payload = blake3(changed[start + 64 : start + 64 + size]).digest()
        header = bytes(changed[start : start + 32])
        digest = tagged("kvq/v1/chunk", bytes(data[32:64]), header, payload)
        changed[start + 32 : start + 64] = digest
    return bytes(changed)


def find(body: Any, pointer: str) -> tuple[Any, Any]:
    """The holder of what an RFC 6901 pointer names, and its key; -1 is the last of an array."""
    *way, last = pointer.split("/")[1:]
    for step in way:
        body = body[int(step)] if isinstance(body, list) else body[step]
    return body, int(last) if isinstance(body, list) else last


def cut(body: dict[str, Any], edit: dict[str, Any]) -> None:
    if "set" in edit:
        holder, key = find(body, edit["set"])
        holder[key] = edit["to"]
    elif "drop" in edit:
        holder, key = find(body, edit["drop"])
        del holder[key]
    elif "copy" in edit:
        holder, key = find(body, edit["copy"])
        target, place = find(body, edit["to"])
        target.insert(place, copy.deepcopy(holder[key]))
    elif "add" in edit:
        target, place = find(body, edit["add"])
        target.insert(place, copy.deepcopy(edit["value"]))
    elif "swap" in edit:
        (one, at), (two, to) = (find(body, pointer) for pointer in edit["swap"])
        one[at], two[to] = two[to], one[at]
    elif "write" in edit:
        holder, key = find(body, edit["write"])
        data, new = bytearray.fromhex(holder[key]), bytes.fromhex(edit["hex"])
        at = edit["at"] % len(data)
        data[at : at + len(new)] = new
        holder[key] = data.hex()
    elif "text" in edit:
        body.setdefault("text", []).append(edit["text"])
    else:
        holder, key = find(body, edit["frame"])
        plain = unzip(holder[key])
        packed = edit.get("packed", len(plain))
        holder[key] = {"entropy": 1, "packed": packed, "bytes": frame(plain, edit).hex()}


def frame(plain: bytes, edit: dict[str, Any]) -> bytes:
    """A zstd frame (RFC 8878) of one raw block, with the faults that the edit names."""
    size, window = edit.get("content_size", len(plain)), edit.get("window")
    dictionary = edit.get("dictionary")
    alone = window is None and size is not None
    descriptor = (0xC0 if size is not None else 0) | (0x20 if alone else 0)
    descriptor |= 3 if dictionary is not None else 0
    out = bytes.fromhex(edit.get("lead", "")) + b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    out += b"" if alone else bytes([0x38 if window is None else window])
    out += b"" if dictionary is None else struct.pack("<I", dictionary)
    out += b"" if size is None else struct.pack("<Q", size)
    block = plain[: len(plain) - edit.get("cut", 0)] + bytes(edit.get("more", 0))
    out += (len(block) << 3 | 1).to_bytes(3, "little") + block
    return out + bytes.fromhex(edit.get("tail", ""))


def alter(data: bytes, edit: dict[str, Any]) -> bytes:
    if "flip" in edit:
        changed = bytearray(data)
        changed[edit["flip"]] ^= edit["mask"]
        return bytes(changed)
    if "reseal" in edit:
        return resealed(data, edit)
    if "truncate" in edit:
        return data[: edit["truncate"]]
    if "append" in edit:
        return data + bytes.fromhex(edit["append"])
    if "remove" in edit:
        return data[: edit["remove"]] + data[edit["remove"] + edit["bytes"] :]
    return data[: edit["insert"]] + bytes.fromhex(edit["hex"]) + data[edit["insert"] :]

"""bombs: small files that ask for much, each with the command that meets it.

    BOMBS[name].build(folder)      what stands behind the command's name
    BOMBS[name].plain              the same command's measure: see SMALL

Lengths, digests and CRCs hold wherever that brings a lie further.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

from support import surgery
from support.captures import canonical_capture, raw_safetensors, safetensors_bytes, write_folder

MIB = 1 << 20
PROFILE = {"schema": "kvq_profile_v1", "name": "p", "rules": [{"codec": "raw"}]}
MAP = {"schema": "kvq_layout_map_v1", "rules": [{"name": "k", "role": "key", "axes": "HTD"}]}


@dataclass(frozen=True)
class Bomb:
    """`build` writes files and gives the arguments; `kind` names the small command to compare."""

    kind: str
    build: Callable[[Path], Sequence[object]]
    code: int
    error: str


def container(folder: Path) -> bytes:
    """A small container of raw pages: HEAD, two pages, leaf, root."""
    from kvq_cli import pipeline

    source, target = folder / "source", folder / "base.kvq"
    source.write_bytes(canonical_capture(layers=1, heads=1, tokens=1, channels=4))
    pipeline.compress(source, target, profiles=["raw"], threads=1, force=True)
    return target.read_bytes()


def small(kind: str, folder: Path) -> Sequence[object]:
    """What a command of this kind is given where nothing is wrong."""
    capture = folder / "small.safetensors"
    capture.write_bytes(canonical_capture(layers=1, heads=1, tokens=1, channels=4))
    if kind in ("verify", "inspect", "decompress"):
        box = folder / "small.kvq"
        box.write_bytes(container(folder))
        return {
            "verify": ["verify", box],
            "inspect": ["inspect", "--pages", box],
            "decompress": ["decompress", "-f", box, "-o", folder / "restored"],
        }[kind]
    if kind == "compress":
        return ["compress", "-f", capture]
    if kind == "map":
        told = folder / "map.json"
        told.write_text(json.dumps(MAP))
        capture.write_bytes(safetensors_bytes({"k": ("F16", (1, 1, 4), bytes(8))}))
        return ["compress", "-f", capture, "--layout", told]
    if kind == "queries":
        asked = folder / "asked"
        asked.write_bytes(safetensors_bytes({"query": ("F16", (1, 1, 1, 1, 4), bytes(8))}))
        return ["stats", capture, "--queries", asked]
    if kind == "digest":
        return ["profile", "digest", "int8"]
    told = folder / "small.json"
    told.write_text(json.dumps(PROFILE))
    return ["profile", "check", told]


def boxed(kind: str, edits: Callable[[], list[dict[str, Any]]], code: int, error: str) -> Bomb:
    """A container after edits."""

    def build(folder: Path) -> Sequence[object]:
        path = folder / "bomb.kvq"
        path.write_bytes(surgery.operate(container(folder), edits()))
        return given(kind, path)

    return Bomb(kind, build, code, error)


def given(kind: str, path: Path) -> Sequence[object]:
    words = {
        "verify": ["verify", path],
        "inspect": ["inspect", "--pages", path],
        "decompress": ["decompress", path, "-o", path.with_name("restored")],
        "compress": ["compress", path],
        "check": ["profile", "check", path],
        "digest": ["profile", "digest", path],
    }
    return words[kind]


def file(kind: str, data: Callable[[], bytes], code: int, error: str, name: str = "bomb") -> Bomb:
    """A file of these bytes."""

    def build(folder: Path) -> Sequence[object]:
        path = folder / name
        path.write_bytes(data())
        return given(kind, path)

    return Bomb(kind, build, code, error)


def sparse(kind: str, start: Callable[[Path], bytes], size: int, code: int, error: str) -> Bomb:
    """A file that begins with these bytes and goes on with a hole."""

    def build(folder: Path) -> Sequence[object]:
        path = folder / "bomb"
        path.write_bytes(start(folder))
        os.truncate(path, size)
        return given(kind, path)

    return Bomb(kind, build, code, error)


def frame(size: int, **more: Any) -> str:
    """A zstd frame of so many zeros."""
    return zstandard.ZstdCompressor(level=1, **more).compress(bytes(size)).hex()


def plane(packed: int, frame: str) -> list[dict[str, Any]]:
    """The first page's plane in place of its own."""
    value = {"entropy": 1, "packed": packed, "bytes": frame}
    return [{"set": "/chunks/1/planes/0", "to": value}]


def unsized(size: int) -> str:
    """A frame that does not state its content size."""
    return frame(size, write_content_size=False)


def windowed() -> str:
    """A frame that asks for a window of 2 GiB."""
    return (b"\x28\xb5\x2f\xfd\x80" + bytes([21 << 3]) + struct.pack("<I", 8) + b"\x01\0\0").hex()


def liar(size: int) -> str:
    """A frame that states 8 bytes and holds `size`."""
    data = bytes.fromhex(frame(size))
    head = 4 + 1 + (0 if data[4] & 0x20 else 1) + (1, 2, 4, 8)[data[4] >> 6]
    return (b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 8) + data[head:]).hex()


def claiming(kind: bytes, stored: int, packed: int) -> Callable[[Path], bytes]:
    """A container up to its first page, then a chunk of so many zeros, which a hole gives."""

    def start(folder: Path) -> bytes:
        data = container(folder)
        at = surgery.places(data)[1].start
        fields = kind + struct.pack("<IQQI", 0, stored, packed, 1)
        fields += struct.pack("<I", zlib.crc32(fields))
        payload = blake3(bytes(stored)).digest()
        return data[:at] + fields + surgery.tagged("kvq/v1/chunk", data[32:64], fields, payload)

    return start


def folder_of(files: Callable[[], dict[str, bytes]], code: int, error: str) -> Bomb:
    def build(folder: Path) -> Sequence[object]:
        return ["compress", write_folder(folder / "bomb", files())]

    return Bomb("compress", build, code, error)


def linked(folder: Path) -> Sequence[object]:
    """2,000 names of one file, whose header has 8 MiB."""
    (folder / "bomb").mkdir()
    first = folder / "bomb" / "0.safetensors"
    first.write_bytes(raw_safetensors(b"{}".ljust(8 * MIB)))
    for number in range(1, 2000):
        os.link(first, first.with_name(f"{number}.safetensors"))
    return ["compress", folder / "bomb"]


def carried(folder: Path) -> Sequence[object]:
    """A shard, and 2,000 holes of 8 MiB beside it."""
    path = write_folder(folder / "bomb", {"a.safetensors": canonical_capture()})
    for number in range(2000):
        (path / f"{number}.bin").touch()
        os.truncate(path / f"{number}.bin", 8 * MIB)
    return ["compress", path]


def heads(folder: Path) -> Sequence[object]:
    """A container of a folder with 1,000 files, whose heads unpack to 8 MiB each."""
    from kvq_cli import pipeline

    source, box, path = folder / "folder", folder / "base.kvq", folder / "bomb.kvq"
    write_folder(source, {"a.safetensors": canonical_capture()})
    pipeline.compress(source, box, profiles=["raw"], threads=1)
    body = surgery.take_apart(box.read_bytes())
    text = bytes(8 * MIB)
    entry = {"digest": "blake3:" + blake3(text).hexdigest()}
    body["header"]["content"]["files"] += [{"name": f"b{at:04}", **entry} for at in range(1000)]
    unpacked = zstandard.ZstdCompressor(level=1).compress(text).hex()
    for number in range(1, 1001):
        coded = {"entropy": 1, "packed": len(text), "bytes": unpacked}
        chunk = {"type": "HEAD", "record": {"source": number, "zero": 0}, "planes": [coded]}
        body["chunks"].insert(number, chunk)
    surgery.unzip, kept = lambda plane: text if plane["entropy"] else kept(plane), surgery.unzip
    try:
        path.write_bytes(surgery.put_together(body))
    finally:
        surgery.unzip = kept
    return ["verify", path]


def of_map(rules: list[dict[str, Any]], names: int) -> Callable[[Path], Sequence[object]]:
    """A layout map next to a capture with so many tensors."""

    def build(folder: Path) -> Sequence[object]:
        told, path = folder / "map.json", folder / "bomb"
        told.write_text(json.dumps({"schema": "kvq_layout_map_v1", "rules": rules}))
        path.write_bytes(
            safetensors_bytes({"a" * 200 + str(at): ("F16", (0,), b"") for at in range(names)})
        )
        return ["compress", path, "--layout", told]

    return build


def asked(shape: list[int], text: str | None = None) -> Callable[[Path], Sequence[object]]:
    """Queries of a shape, as a hole, for a small capture."""

    def build(folder: Path) -> Sequence[object]:
        capture, path = folder / "capture", folder / "bomb"
        capture.write_bytes(canonical_capture(layers=1, heads=3, tokens=1, channels=4))
        size = 2
        for length in shape:
            size *= length
        entry = {"dtype": "F16", "shape": shape, "data_offsets": [0, size]}
        path.write_bytes(raw_safetensors(text or json.dumps({"query": entry})))
        os.truncate(path, path.stat().st_size + size)
        return ["stats", capture, "--queries", path]

    return build


def many(count: int) -> bytes:
    """A header of so many tensors of no bytes."""
    entry = '{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return raw_safetensors("{" + ",".join(f'"{at}":{entry}' for at in range(count)) + "}")


def vector_profile(**members: Any) -> bytes:
    """A vector profile of the contract, which asks for a rotation and a codebook."""
    vectors = Path(__file__).parents[2] / "formats" / "vectors" / "contract" / "invalid.json"
    groups = {each["object"]: each for each in json.loads(vectors.read_text())["groups"]}
    return json.dumps({**groups["vector_profile"]["base"], **members}).encode()


def text(value: Any) -> Callable[[], bytes]:
    return lambda: json.dumps(value).encode()


def content(pointer: str, value: Any) -> dict[str, Any]:
    return {"set": f"/header/content/{pointer}", "to": value}


EMPTY = {"file": 0, "dtype": "U8", "shape": [0], "nbytes": 0, "rows": None}
ROTATED = {"name": "turboquant_mse", "revision": 1, "params": {"bits": 4}}
DEEP = "[" * (8 * MIB - 100)
CALIBRATION = {"schema": "kvq_calibration_v1"}
BOMBS: dict[str, Bomb] = {
    # containers
    "frame of 1 GiB in a plane of 8 bytes": boxed(
        "verify", lambda: plane(8, frame(1 << 30)), 3, "E307"
    ),
    "frame of 64 MiB where the layout says 8 bytes": boxed(
        "verify", lambda: plane(1 << 26, frame(1 << 26)), 3, "E304"
    ),
    "frame of 1 GiB without a content size": boxed(
        "verify", lambda: plane(8, unsized(1 << 30)), 3, "E307"
    ),
    "frame that states 8 bytes and holds 1 GiB": boxed(
        "verify", lambda: plane(8, liar(1 << 30)), 3, "E307"
    ),
    "frame with a window of 2 GiB": boxed("decompress", lambda: plane(8, windowed()), 3, "E307"),
    "plane table of 2^32 - 1 planes": boxed(
        "verify", lambda: [{"set": "/chunks/1/count", "to": 2**32 - 1}], 3, "E304"
    ),
    "HEAD that unpacks to 128 MiB": boxed(
        "verify",
        lambda: [
            {
                "set": "/chunks/0/planes/0",
                "to": {"entropy": 1, "packed": 1 << 27, "bytes": frame(1 << 27)},
            }
        ],
        3,
        "E304",
    ),
    "a thousand HEADs of 8 MiB": Bomb("verify", heads, 7, "E306"),
    "page of 128 MiB in a hole": sparse(
        "verify", claiming(b"PAGE", 1 << 27, 1 << 27), 1 << 33, 3, "E303"
    ),
    "page of 8 bytes stored in 128 MiB": sparse(
        "verify", claiming(b"PAGE", 1 << 27, 8), 1 << 33, 3, "E304"
    ),
    "ancillary chunk of 128 MiB in a hole": sparse(
        "verify", claiming(b"note", 1 << 27, 1 << 27), 1 << 33, 3, "E304"
    ),
    "index of 128 MiB in a hole": sparse(
        "verify", claiming(b"INDX", 1 << 27, 1 << 27), 1 << 33, 3, "E304"
    ),
    "container with a hole of 64 GiB behind it": sparse("verify", container, 1 << 36, 3, "E304"),
    "container with a hole of 64 GiB, by index": sparse("inspect", container, 1 << 36, 3, "E302"),
    "header JSON of 1 MiB, nested": boxed(
        "verify", lambda: [{"text": ['"none"', "[" * 900_000]}], 3, "E304"
    ),
    "header of 50,000 head sets": boxed(
        "verify",
        lambda: [content("head_sets", [[at] for at in range(50_000)] + [[1, 0]])],
        3,
        "E304",
    ),
    "header of 9,000 tensors": boxed(
        "verify",
        lambda: [
            content(
                "tensors",
                [EMPTY | {"name": str(at)} for at in range(9_000)],
            )
        ],
        3,
        "E304",
    ),
    "part of 2^40 tokens": boxed("verify", lambda: [content("parts/0/tokens", 1 << 40)], 3, "E304"),
    "tensor whose lengths multiply to 2^186": boxed(
        "inspect", lambda: [content("tensors/0/shape", [1 << 62] * 3)], 3, "E304"
    ),
    "root of 2^32 - 1 leaves": boxed(
        "inspect", lambda: [{"set": "/chunks/4/count", "to": 2**32 - 1}], 3, "E304"
    ),
    "leaf of 2^32 - 1 pages": boxed(
        "inspect", lambda: [{"set": "/chunks/3/count", "to": 2**32 - 1}], 3, "E304"
    ),
    "footer of 2^64 - 1 pages": boxed(
        "inspect", lambda: [{"set": "/footer/pages", "to": 2**64 - 1}], 3, "E304"
    ),
    "codec of a rotation of 2^20 channels": boxed(
        "verify",
        lambda: [content("codecs/0", ROTATED)],
        3,
        "E304",
    ),
    # captures
    "header of 8 MiB, nested": file(
        "compress", lambda: raw_safetensors('{"a":' + DEEP + "}"), 3, "E201"
    ),
    "header of 8 MiB, nested in objects": file(
        "compress", lambda: raw_safetensors('{"a":' * 1_600_000), 7, "E207"
    ),
    "header of one name of 8 MiB": file(
        "compress", lambda: raw_safetensors('{"' + "a" * (8 * MIB - 100) + '":1}'), 3, "E201"
    ),
    "header of one number of 8 MiB": file(
        "compress", lambda: raw_safetensors('{"a":' + "9" * (8 * MIB - 100) + "}"), 3, "E201"
    ),
    "shape of four million lengths": file(
        "compress",
        lambda: raw_safetensors(
            '{"a":{"dtype":"U8","shape":[' + "1," * 4_000_000 + '1],"data_offsets":[0,1]}}', 1
        ),
        7,
        "E207",
    ),
    "header of quotes and backslashes": file(
        "compress", lambda: raw_safetensors('{"' + '\\"' * (4 * MIB - 100)), 7, "E207"
    ),
    "header of 150,000 tensors": file("compress", lambda: many(150_000), 7, "E207"),
    "header of 26,000 tensors": file("compress", lambda: many(26_000), 4, "E204"),
    "header of 65,000 keys of metadata": file(
        "compress",
        lambda: raw_safetensors(
            '{"__metadata__":{' + ",".join(f'"{at}":""' for at in range(65_000)) + "}}"
        ),
        4,
        "E204",
    ),
    "header of 600,000 keys of metadata": file(
        "compress",
        lambda: raw_safetensors(
            '{"__metadata__":{' + ",".join(f'"{at}":""' for at in range(600_000)) + "}}"
        ),
        7,
        "E207",
    ),
    "capture of a hole of 1 TiB": sparse("compress", lambda _: b"", 1 << 40, 3, "E201"),
    "capture whose header is a hole": sparse(
        "compress", lambda _: (1 << 35).to_bytes(8, "little") + b"{", 1 << 36, 7, "E207"
    ),
    "folder of 4,097 files": folder_of(
        lambda: {f"{at}.safetensors": b"" for at in range(4097)}, 7, "E207"
    ),
    "folder of 2,000 headers of 8 MiB": Bomb("compress", linked, 7, "E207"),
    "folder with 2,000 files of 8 MiB beside the tensors": Bomb("compress", carried, 7, "E207"),
    # profiles, calibrations, layout maps, queries
    "profile of 16 MiB": file("check", lambda: b"{" + b" " * (16 * MIB), 7, "E404", "b.json"),
    "profile of 1 MiB, nested": file(
        "check", lambda: b'{"schema":' + b"[" * 1_000_000, 3, "E401", "b.json"
    ),
    "profile of 60,000 rules": file(
        "check",
        lambda: json.dumps(PROFILE | {"rules": [{"codec": "raw"}] * 50_000}).encode(),
        7,
        "E404",
        "b.json",
    ),
    "profile of pages of 2^64 tokens": file(
        "check", text(PROFILE | {"page_tokens": 1 << 64}), 3, "E401", "b.json"
    ),
    "profile of a codebook of 2^32 words": file(
        "digest", lambda: vector_profile(codebook_size=2**32 - 1), 7, "E404", "b.json"
    ),
    "profile of a rotation of 2^31 channels": file(
        "digest", lambda: vector_profile(ambient_dim=2**31), 7, "E404", "b.json"
    ),
    "calibration of 90,000 channels": file(
        "check",
        lambda: json.dumps(
            CALIBRATION
            | {"layers": 1, "kv_heads": [1], "value": None, "first_tokens": 0, "profile": None}
            | {"bits_per_element": None}
            | {
                "key": {
                    "head_dim": 1,
                    "rows": 1,
                    "mean_norm": 1,
                    "max_norm": 1,
                    "outlier_rows": 0,
                    "outlier_channels": [[0, 0, at] for at in range(90_000)],
                    "mean_energy": 0,
                    "axis": "token",
                }
            }
        ).encode(),
        7,
        "E404",
        "b.json",
    ),
    "layout map of a pattern that backtracks": Bomb(
        "map", of_map([{"name": "(a|a)*b", "role": "key", "axes": "TD"}], 10), 3, "E401"
    ),
    "layout map of 256 patterns for 1,000 names": Bomb(
        "map",
        of_map([{"name": f".*.*{at}x", "role": "key", "axes": "TD"} for at in range(256)], 1000),
        7,
        "E207",
    ),
    "queries of a hole of 1 TiB": Bomb("queries", asked([1, 1, 3, 1 << 37, 4]), 7, "E207"),
    "queries of other heads, a hole of 64 GiB": Bomb(
        "queries", asked([1, 1, 1 << 30, 8, 4]), 1, "E208"
    ),
}

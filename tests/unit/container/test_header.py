"""header: every member of the header JSON at its limits, and beyond them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from kvq_cli.container.header import read_manifest
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import ContainerError
from support.manifests import changed, header_of, read
from support.surgery import canonical

RAW = header_of("raw")
FOLDER = header_of("folder")
DIGEST = "blake3:" + "0123456789abcdef" * 4
BLOCKS = header_of("packed-blocks")


def table(number: int = 0, shape: tuple[int, ...] = (1,), dtype: str = "<f4") -> dict[str, Any]:
    digest = f"blake3:{number:064x}"
    return {"dtype": dtype, "shape": list(shape), "digest": digest}


def part(start: int, stop: int, batch: int = 1, heads: int = 1) -> dict[str, Any]:
    members = {"layers": [[start, stop]], "batch": batch, "kv_heads": heads}
    return RAW["content"]["parts"][0] | members


# What one member of content or storage may be, and what it may not.
MEMBERS: dict[str, tuple[list[Any], list[Any]]] = {
    "token_offset": ([0, 1, 2**64 - 1], [-1, 2**64, None, 0.0, False]),
    "continues": ([None, DIGEST], ["", DIGEST[:-1], 7, "blake3:" + "F" * 64]),
    "queries_digest": ([None, DIGEST], ["", DIGEST[:-1], 7]),
    "calibration_digest": ([None, DIGEST], ["", DIGEST[:-1], 7]),
    "probe": (["none", "self", "capture", "file"], ["", "None", None, "selfs"]),
    "schema": (["kvq_container_v1"], ["kvq_container_v2", "", None]),
    "layout": (["", "canonical", "anything"], [None, 7]),
    "identity": ([{}, {"model": "m", "": ""}], [None, [], {"model": 1}, {"model": None}]),
    "storage__entropy": (["zstd", "none"], ["lz4", "", None, "zstd "]),
    "storage__level": ([0, 1, 22], [-1, 23, None, 1.0, True]),
    "storage__writer": (["", "kvq 9"], [None, 1]),
    "storage__alignment": ([64, 128, 1 << 21], [63, 0, -64, (1 << 21) + 1, 1 << 22, None]),
    "parts": (
        [
            [],
            [part(0, 1), part(1, 2)],
            [part(5, 6), part(0, 5)],
            [part(0, 1 << 16)],
            [part(0, 1, 1 << 16)],
            [part(0, 1 << 15, 2)],
            [part(0, 1 << 15), part(1 << 15, 1 << 16)],
            [part(0, 32, 1, 1 << 16)],
            [part(0, 4, 8, 1 << 16)],
            [part(0, 16, 1, 1 << 16), part(16, 32, 1, 1 << 16)],
        ],
        [
            None,
            [part(0, 2), part(1, 3)],
            [part(1, 3), part(0, 2)],
            [part(0, 3), part(1, 2)],
            [part(0, 1), part(0, 1)],
            [part(0, 1) | {"key": None, "value": None}],
            [part(0, (1 << 16) + 1)],
            [part(0, 1, (1 << 16) + 1)],
            [part(0, (1 << 15) + 1, 2)],
            [part(0, 33, 1, 1 << 16)],
            [part(0, 4, 9, 1 << 16)],
            [part(0, 32, 1, 1 << 16), part(32, 33)],
            [part(0, 1 << 15, 1), part(1 << 15, 1 << 16, 2)],
        ],
    ),
    "parts__0__layers": (
        [[], [[0, 1]], [[0, 1], [2, 3]], [[65535, 65536]]],
        [
            [[0, 0]],
            [[1, 0]],
            [[-1, 1]],
            [[0]],
            [[0, 1, 2]],
            [[0, True]],
            [[False, 1]],
            [0, 1],
            [[0, 1.0]],
            ["01"],
            [{"0": 0, "1": 1}],
            [[65536, 65537]],
            [[0, 2], [1, 3]],
            None,
        ],
    ),
    "parts__0__batch": ([1, 2, 65536], [0, -1, 65537, (1 << 31) + 1, None, True]),
    "parts__0__kv_heads": ([1, 65536], [0, 65537, None]),
    "parts__0__tokens": ([1, 1 << 40], [0, (1 << 40) + 1, None]),
    "parts__0__key": ([None], [[], "F16", 1]),
    "parts__0__key__head_dim": ([1, 1 << 20], [0, (1 << 20) + 1, None]),
    "parts__0__key__dtype": (["F16", "BF16", "F32"], ["f16", "F64", "", None]),
    "parts__0__key__shape": ([{}, {"a": 1}], [None, [], "x"]),
    "parts__0__key__shape_digest": ([None, DIGEST], ["", 7]),
    "head_sets": (
        [[], [[0]], [[0, 65535]], [[1], [0]], [[0, 1, 2]]],
        [
            None,
            [[]],
            [0],
            [[1, 0]],
            [[0, 0]],
            [[-1]],
            [[-1, 0]],
            [[65536]],
            [[0, 65536]],
            [[True]],
            [[0, True]],
            [[0.0]],
            [7],
            [{"0": 0}],
            ["0"],
        ],
    ),
    "codecs__0__revision": ([1, 65536], [0, 65537, None]),
    "codecs__0__name": (["raw", ""], [None, 7]),
    "codecs__0__params": ([{}, {"a": []}], [None, [], "x"]),
    "profiles__0__roles": ([[], ["key"], ["x"]], [None, "key", [1], {}]),
    "profiles__0__profile": ([{}], [None, [], "x"]),
    "profiles__0__digest": (["", DIGEST], [None, 7]),
    "tables": (
        [
            [],
            *([table(dtype=dtype)] for dtype in ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4")),
            *([table(dtype=dtype)] for dtype in ("<f2", "<f4", "<f8")),
            [table(shape=(1, 1, 1, 1))],
            [table(shape=(1 << 26,), dtype="|u1")],
            [table(shape=(1 << 12, 1 << 12))],
            [table(0, (1 << 25,), "|u1"), table(1, (1 << 25,), "|u1")],
            [table(number) for number in range(64)],
        ],
        [
            None,
            [table(number) for number in range(65)],
            [table(1), table(1, (2,))],
            [table(shape=())],
            [table(shape=(1, 1, 1, 1, 1))],
            [table(shape=(0,))],
            [table(shape=(-1,))],
            [table(shape=((1 << 26) + 1,), dtype="|u1")],
            [table(shape=(1 << 26, 1 << 26, 1), dtype="|u1")],
            [table(0, (1 << 25,), "|u1"), table(1, ((1 << 25) + 1,), "|u1")],
            [table(dtype="<i8")],
            [table(dtype=">f4")],
            [table(dtype="f4")],
            [table() | {"digest": "blake3:0"}],
            [table() | {"digest": None}],
            [table() | {"more": 1}],
        ],
    ),
    "files": (
        [None, [{"name": "a", "digest": None}], [{"name": "a", "digest": DIGEST}]],
        [[], {}, [{"name": "a", "digest": "x"}], [{"name": 1, "digest": None}]],
    ),
    "tensors__0__file": ([0, 4096], [-1, 4097, None]),
    "tensors__0__nbytes": ([0, 1 << 50], [-1, (1 << 50) + 1, None]),
    "tensors__0__shape": ([[], [0], [2**64 - 1, 1]], [[-1], [2**64], [1.0], None, [True]]),
    "tensors__0__name": (["", "a/../b"], [None, 7]),
    "tensors__0__dtype": (["F16", "", "x"], [None, 7]),
    "tensors__0__rows": ([None], [[], "x"]),
    "tensors__0__rows__roles": (
        [["key"], ["value"]],
        [[], ["value", "key"], ["key", "value"], ["key", "key"], ["x"], None],
    ),
    "tensors__0__rows__first_layer": ([0, 65536], [-1, 65537, None]),
    "tensors__0__rows__first_head": ([0, 65536], [-1, 65537, None]),
    "tensors__0__rows__tokens": ([1], [0, 2, (1 << 40) + 1, None]),
    "tensors__0__rows__axes": (
        ["LHTD", "DTHL", "THLD"],
        ["LHT", "LHD", "LLHTD", "LHTDX", "LHTDT", "BLHTD", "HTD", "LHTD,LHTD", "", None, "lHTD"],
    ),
    "tensors__0__rows__lengths": (
        [{"D": 1 << 40, "H": 1, "L": 1, "T": 1}],
        [
            {},
            None,
            {"D": 4, "H": 1, "L": 1},
            {"D": 4, "H": 1, "L": 1, "T": 1, "B": 1},
            {"D": 0, "H": 1, "L": 1, "T": 1},
            {"D": (1 << 40) + 1, "H": 1, "L": 1, "T": 1},
        ],
    ),
}
GOOD = [(name, value) for name, (good, _) in MEMBERS.items() for value in good]
BAD = [(name, value) for name, (_, bad) in MEMBERS.items() for value in bad]


def labels(cases: list[tuple[str, Any]]) -> list[str]:
    return [f"{name}={value!r}"[:60] for name, value in cases]


@pytest.mark.parametrize(("name", "value"), GOOD, ids=labels(GOOD))
def test_what_a_member_may_be(name, value):
    """It is read, and written as it was."""
    header = changed(RAW, **{name: value})
    assert read(header).to_bytes() == canonical(header)


@pytest.mark.parametrize(("name", "value"), BAD, ids=labels(BAD))
def test_what_a_member_may_not_be(name, value):
    """Everything else is refused, at the header."""
    with pytest.raises(ContainerError) as refusal:
        read(changed(RAW, **{name: value}), RAW["storage"]["alignment"])
    assert (refusal.value.error_id, refusal.value.offset) == ("E304", 64)
    # Its pointer is told, or that of what it lies in.
    told = re.search(r"header (/[^:]*):", str(refusal.value))
    if told is not None:  # header and preamble may differ in alignment
        pointer = f"/content/{name}".replace("/content/storage__", "/storage/").replace("__", "/")
        found = told[1]
        parents = [pointer[: at.start()] for at in re.finditer("/", pointer)]
        assert found in (pointer, *parents) or found.startswith(f"{pointer}/") or "rows" in found


def test_values_that_are_read():
    """Each member of a manifest is the one of its name."""
    header = changed(
        FOLDER,
        token_offset=7,
        continues=DIGEST,
        probe="file",
        queries_digest=DIGEST,
        calibration_digest="blake3:" + "1" * 64,
        storage__level=9,
        storage__writer="w",
    )
    read_ = read(header)
    found = (read_.token_offset, read_.continues, read_.probe, read_.queries_digest)
    assert found == (7, DIGEST, "file", DIGEST)
    assert (read_.calibration_digest, read_.level, read_.writer) == ("blake3:" + "1" * 64, 9, "w")
    assert read_.to_bytes() == canonical(header)


def test_defaults():
    """A manifest that says nothing of segments, probes and digests is one without."""
    full = read(RAW)
    stated = {each.name: getattr(full, each.name) for each in dataclasses.fields(full)}
    names = ("token_offset", "continues", "probe", "queries_digest", "calibration_digest")
    needed = {name: each for name, each in stated.items() if name not in (*names, "_by_layer")}
    assert Manifest(**needed) == full


def objects(value: Any, way: str = "") -> list[str]:
    """The ways to all objects whose members the page of the container lists."""
    found = [way] if isinstance(value, dict) else []
    members = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in members:
        if isinstance(each, dict | list) and key not in ("shape", "params", "profile", "identity"):
            found += objects(each, f"{way}__{key}" if way else str(key))
    return found


WAYS = [way for way in objects(BLOCKS["content"]) if not way.endswith("lengths")]


@pytest.mark.parametrize("way", WAYS)
def test_members_are_those_of_the_table(way):
    """None is missing and none is there that nobody knows."""
    prefix = f"{way}__" if way else ""
    holder: Any = BLOCKS["content"]
    for step in way.split("__") if way else ():
        holder = holder[int(step) if step.isdigit() else step]
    for name in holder:
        with pytest.raises(ContainerError):
            read(changed(BLOCKS, **{prefix + name: ...}))
    with pytest.raises(ContainerError):
        read(changed(BLOCKS, **{prefix + "more": None}))


@pytest.mark.parametrize("name", ["content", "storage"])
def test_the_two_halves(name):
    """Content and storage are there, and nothing else, in either."""
    for header in (
        {key: each for key, each in RAW.items() if key != name},
        RAW | {"more": {}},
        RAW | {name: RAW[name] | {"more": 1}},
        RAW | {name: []},
    ):
        with pytest.raises(ContainerError) as refusal:
            read_manifest(canonical(header), 64, 0)
        assert refusal.value.error_id == "E304"


def test_storage_members():
    """All four of them."""
    for name in RAW["storage"]:
        with pytest.raises(ContainerError):
            read_manifest(canonical(changed(RAW, **{f"storage__{name}": ...})), 64, 0)


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", b"[]", b"\xff", canonical(RAW) + b" ", canonical(RAW).replace(b":", b": ", 1)],
    ids=range(6),
)
def test_text_that_is_refused(raw):
    """No JSON, none of a header, or not canonical."""
    with pytest.raises(ContainerError) as refusal:
        read_manifest(raw, 64, 0)
    assert (refusal.value.error_id, refusal.value.offset) == ("E304", 64)


def test_a_header_of_a_mebibyte():
    """As long as the preamble allows, and no longer."""
    room = (1 << 20) - len(canonical(changed(RAW, storage__writer="")))
    assert read(changed(RAW, storage__writer="x" * room)).writer == "x" * room
    with pytest.raises(ContainerError) as refusal:
        read(changed(RAW, storage__writer="x" * (room + 1)))
    assert refusal.value.error_id == "E304"


def test_header_and_preamble_agree():
    """In the alignment."""
    with pytest.raises(ContainerError) as refusal:
        read(RAW, 128)
    assert (refusal.value.error_id, refusal.value.offset) == ("E304", 64)


LOST = {"header_digest": DIGEST, "content_root": None, "files": [], "tables": [], "tensors": []}
PARTIAL: dict[str, tuple[list[Any], list[Any]]] = {
    "header_digest": ([DIGEST], [None, "", DIGEST[:-1], 7, ...]),
    "content_root": ([None, DIGEST], ["", DIGEST[:-1], 7, ...]),
    "files": ([[], [0], [0, 2**64 - 1]], [[0, 0], [1, 0], [-1], [2**64], [True], None, ...]),
    "tables": ([[], [0], [0, 2**64 - 1]], [[0, 0], [1, 0], [-1], [2**64], [True], None, ...]),
    "tensors": (
        [[], [[0, 0]], [[0, 5], [1, 0]], [[0, 0], [0, 4]]],
        [[[0]], [[0, 0, 0]], [[0, 0], [0, 0]], [[1, 0], [0, 5]], [[0, 4], [0, 0]], [[True, 0]],
         [[0, 0.0]], [0, 0], [{"0": 0, "1": 0}], ["00"], {}, None, ...],
    ),
    "more": ([], [None]),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTIAL)
def test_what_is_lost(name):
    """Each member of `partial`: what it may be, and what not."""
    header = changed(RAW, partial=LOST)
    for value in PARTIAL[name][0]:
        good = changed(header, **{f"partial__{name}": value})
        assert read(good).to_bytes() == canonical(good)
    for value in PARTIAL[name][1]:
        with pytest.raises(ContainerError) as refusal:
            read(changed(header, **{f"partial__{name}": value}))
        assert refusal.value.error_id == "E304"


def test_partial_is_there_where_the_preamble_says_so():
    """And nowhere else."""
    for header, features in ((RAW, 1), (changed(RAW, partial=LOST), 0), (RAW, 2)):
        with pytest.raises(ContainerError) as refusal:
            read_manifest(canonical(header), 64, features)
        assert refusal.value.error_id == "E304"

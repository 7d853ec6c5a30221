"""Generated safetensors files, by kvq's parser and by the official one.

What kvq accepts, the official parser accepts with the same tensors. What kvq alone refuses is of
a kind that formats/capture.md lists, section "Two parsers": each has a name there and a
predicate here, which looks at the header by itself.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from math import prod
from pathlib import Path

import pytest
from safetensors import SafetensorError, deserialize

from kvq_cli.capture import check_headers, open_source
from kvq_cli.capture.header import parse_header
from kvq_cli.errors import CaptureError, FileError
from support.captures import raw_safetensors
from support.headers import BITS, generated

SHARDS = 8
FILES = 100_000
PAGE = Path(__file__).parents[2] / "formats" / "capture.md"
WHITE = (b" ", b"\t", b"\r", b"\n")
THREE = {"dtype", "shape", "data_offsets"}


class Pairs(list):
    """An object with its members as they stand, also those that stand twice."""

    def keys(self):
        return [key for key, _ in self]

    def values(self):
        return [value for _, value in self]

    def get(self, key):
        return next((value for name, value in self if name == key), None)


def twice(value) -> bool:
    if isinstance(value, Pairs):
        return len({*value.keys()}) < len(value) or any(map(twice, value.values()))
    return isinstance(value, list) and any(map(twice, value))


def tensors(header):
    return [value for name, value in header if name != "__metadata__" and isinstance(value, Pairs)]


def shapes(header):
    found = ((each.get("shape"), each.get("dtype")) for each in tensors(header))
    return [(shape, dtype) for shape, dtype in found if isinstance(shape, list)]


def odd_member(entry) -> bool:
    fmt, told = entry.get("fmt"), entry.get("__metadata__")
    texts = isinstance(told, Pairs) and all(isinstance(each, str) for each in told.values())
    names = {*entry.keys()}
    bad_fmt = "fmt" in names and (type(fmt) is not int or not 0 <= fmt < 10**40)
    return bad_fmt or ("__metadata__" in names and not texts)


POINTS = {
    "leading-space": None,  # a matter of bytes, see points_of
    "duplicate-key": twice,
    "unknown-member": lambda header: any(
        {*each.keys()} - THREE - {"fmt", "__metadata__"} for each in tensors(header)
    ),
    "tensor-as-array": lambda header: any(
        type(value) is list for name, value in header if name != "__metadata__"
    ),
    "null-metadata": lambda header: ("__metadata__", None) in header,
    "other-fmt": lambda header: any(map(odd_member, tensors(header))),
    "many-dimensions": lambda header: any(len(shape) > 8 for shape, _ in shapes(header)),
    "empty-and-huge": lambda header: any(
        0 in shape and prod(filter(None, shape)) * BITS.get(dtype, 1) >= 1 << 63
        for shape, dtype in shapes(header)
    ),
    "large-header": None,  # likewise
}


def whole(digits: str) -> int | float:
    """-0 is no integer."""
    return float(digits) if digits == "-0" else int(digits)


def points_of(file: bytes) -> set[str]:
    """The points of the page that a header touches."""
    length = int.from_bytes(file[:8], "little")
    large = length > 8 << 20 or file[8 : 8 + length].count(b'"') > 1 << 18
    found = {"large-header"} if large else set()
    found |= {"leading-space"} if file[8:9] in WHITE else set()
    try:
        text = file[8 : 8 + length]
        header = json.loads(text, object_pairs_hook=Pairs, parse_int=whole)
    except ValueError:
        return found
    return found | {name for name, holds in POINTS.items() if holds and holds(header)}


def official(file: bytes):
    """Tensors by name as the official parser has them; None where it refuses the file."""
    try:
        found = deserialize(file)
    except SafetensorError:
        return None
    return {name: (one["dtype"], one["shape"], bytes(one["data"])) for name, one in found}


def ours(file: bytes):
    """As kvq has them."""
    try:
        header = parse_header(file, len(file))
    except CaptureError:
        return None
    return {
        each.name: (each.dtype, list(each.shape), file[each.start : each.stop])
        for each in header.tensors
    }


def compare(seeds, path, record) -> Counter[str]:
    """Hold both parsers against each other; how often each point was met."""
    met: Counter[str] = Counter()
    counts = Counter()
    for seed in seeds:
        file = generated(random.Random(seed))  # noqa: S311 - not for secrets
        mine, theirs = ours(file), official(file)
        if mine is not None:
            assert mine == theirs, f"seed {seed}: {file!r}"
            counts["by both parsers, alike"] += 1
        elif theirs is None:
            counts["by neither parser"] += 1
        else:
            points = points_of(file)
            assert points, f"seed {seed}: only kvq refuses it, and no point says so: {file!r}"
            met.update(points)
            counts["by the official parser alone, at a point that the page names"] += 1
        if seed % 50 == 0:
            path.write_bytes(file)
            assert whole_way(path) == (mine is not None), f"seed {seed}: {file!r}"
    for what, count in counts.items():
        record("figure", (f"generated safetensors files taken {what}", count))
    return met


def whole_way(path) -> bool:
    """Whether the file is taken as a command takes it, official parser included."""
    try:
        with open_source(path) as source:
            check_headers(source.files)
    except (CaptureError, FileError):
        return False
    return True


def test_the_page_lists_the_points():
    """The table of the page and the predicates are the same list."""
    section = PAGE.read_text().split("### Two parsers\n")[1].split("\n## ")[0]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == [*POINTS]


def test_large_headers():
    """A header of too many bytes or strings is refused by kvq alone, at its point."""
    keys = ",".join(f'"{at}":""' for at in range(1 << 16))
    for text in ("{}".ljust((8 << 20) + 1), f'{{"__metadata__":{{{keys}}}}}'):
        file = raw_safetensors(text)
        assert (ours(file), official(file)) == (None, {})
        assert points_of(file) == {"large-header"}


def test_generated_files(tmp_path, record_property):
    """1,000 files; every point is met."""
    met = compare(range(1000), tmp_path / "file", record_property)
    assert {*met} == {*POINTS} - {"large-header"}


@pytest.mark.long
@pytest.mark.parametrize("shard", range(SHARDS), ids=lambda shard: f"shard{shard}")
def test_many_generated_files(shard, tmp_path, record_property):
    """100,000 others."""
    compare(range(1000 + shard, 1000 + FILES, SHARDS), tmp_path / "file", record_property)

"""layout_map: the JSON of layout maps, and what they make of tensors of many names.

input := the JSON of the map
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from fuzzing.memory import Zeros
from fuzzing.vectors import cases
from kvq_cli import jsontext
from kvq_cli.capture.files import File, Files
from kvq_cli.capture.header import Header, Tensor
from kvq_cli.capture.layout import bind
from kvq_cli.capture.layout_map import MAX_BYTES, parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.errors import CaptureError, ProfileError

WORDS: Final = (
    "schema", "kvq_layout_map_v1", "kvq_layout_map_v2", "description", "rules", "facts", "name",
    "file", "role", "roles", "axes", "lengths", "first_layer", "first_head", "key", "value",
    "both", "k", "v", "HTD", "BHTD", "RHTD", "B,HT,D", "R,T,HD", "TD", "TRDHdtu,TRtHuDd", "H",
    "T", "D", "d", "t", "u", "B", "L", "R", "kv", "model", "rope_theta", "rope_state", "post",
    r"blk\\.(?P<layer>\\d+)\\.(?P<role>k|v)", "(?P<role>k|v)", r"(?P<layer>\\d+)",
    r"(?P<head>\\d+)", ".*", "[^.]+", r"\\w+\\.\\d+", "(a|b)*", "(a*)*", "(a|aa)+", "x?",
    ".*.*.*", "[a-z]", "(?:k|v)?",
)  # fmt: skip
SHAPES: Final = (
    ("blk.0.k", (2, 5, 8)), ("blk.0.v", (2, 5, 8)), ("blk.12.k", (1, 10, 8)),
    ("kv", (2, 2, 5, 8)), ("layer.3.head.1.key", (5, 8)), ("ids", (5,)), ("", (1, 2, 5, 8)),
    ("a" * 40, (5, 16)), ("cache.1.kv", (2, 5, 16)), ("x.é", (2, 1, 2, 5, 8)),
)  # fmt: skip


def _files() -> Files:
    tensors, at = [], 8
    for name, shape in SHAPES:
        size = 2 * math.prod(shape)
        tensors.append(Tensor(name, "F16", shape, at, at + size))
        at += size
    header = Header(tuple(tensors), {"model": "m"}, bytes(8), at)
    return Files([File("x", header.raw, header), File("y/1.safetensors", header.raw, header)])


FILES: Final = _files()
ONE: Final = Files([File(None, FILES.files[0].head, FILES.files[0].header)])


def run(data: bytes) -> str:
    try:
        found = parse_map(jsontext.loads(data, limit=MAX_BYTES))
    except ProfileError as error:
        return error.error_id
    outcome = "parsed"
    for files in (FILES, ONE):
        try:
            fit = recognise(found, files)
            if fit is not None:
                header = files.files[0].header
                assert header is not None
                bind(Zeros(header, files), "map", fit)
                outcome = "bound"
        except CaptureError as error:
            outcome = f"parsed, {error.error_id}"
    return outcome


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, value in cases("layout_map", "layout_map"):
        text = jsontext.canonical(value).encode()
        if len(text) < 2000:
            yield name, text

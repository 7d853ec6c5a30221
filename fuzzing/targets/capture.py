"""capture: the header of a safetensors file, and what the layouts make of its tensors.

input := how(1) rest
how    bit 0  rest is the first bytes of a file of as many bytes; otherwise it is the JSON
              of the header, for which length and file are made to fit
       bit 1  the layout map is guessed, too
       bit 2  the official parser is asked, too
       bit 3  what was read is written and read again
       bit 4  it is a folder of two such files
       bits 5 to 7  the layout that is named; 0 for none
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from fuzzing.memory import Bytes, Zeros
from fuzzing.vectors import containers, load
from kvq_cli.capture import gatekeeper, recognised
from kvq_cli.capture.files import File, Files, one_file
from kvq_cli.capture.guess import propose
from kvq_cli.capture.header import Header, parse_header
from kvq_cli.capture.layout import bind
from kvq_cli.container.reader import Reader
from kvq_cli.errors import CaptureError
from kvq_cli.steps.front import load_front
from kvq_cli.steps.pages import PageOpener
from kvq_cli.words import ELEMENT_BITS

WHOLE, GUESS, OFFICIAL, AGAIN, FOLDER = 1, 2, 4, 8, 16
NAMED: Final = (None, "vllm", "vllm_split", "vllm_cpu", "vllm_mla", "hf", "mlx", "lmcache")
NAME: Final = "model.layers.{}.self_attn.attn.safetensors"
STOP: Final = re.compile(rb'"data_offsets":\s*\[\d{1,20},\s*(\d{1,20})\]')
WORDS: Final = (
    "dtype", "shape", "data_offsets", "__metadata__", "fmt", "F16", "BF16", "F32", "F64", "I64",
    "I32", "U8", "U32", "BOOL", "F8_E4M3", "F8_E5M2", "F4", "key", "value", "k", "v", "key_cache",
    "value_cache", "layers.0.keys", "layers.0.values", "layers.1.key", "layer_0.key", "0", "1",
    "model.layers.0.self_attn.k", "offset", "step", "positions", "tokens", "num_tokens", "keys",
    "kv_cache", "past_key_values.0.key", "past_key_values.0.value", "axes", "BLHTD", "BHTD",
    "model", "rope_theta", "rope_state", "attention_kind", "query_heads", "kv_heads", "head_dim",
    "first_layer", "token_offset", "kvq.layout", "cache_type", "KVCache", "RotatingKVCache",
    "QuantizedKVCache", "block_size", "engine", "tokenizer",
)  # fmt: skip


def run(data: bytes) -> str:
    how, rest = (data[0] if data else 0), data[1:]
    try:
        header = parse_header(*(rest, len(rest)) if how & WHOLE else fitted(rest))
        if how & OFFICIAL:
            gatekeeper.check(header)
        if how & AGAIN:
            written_again(header)
        look(header, how)
    except CaptureError as error:
        return error.error_id
    return "parsed"


def fitted(text: bytes) -> tuple[bytes, int]:
    """The JSON with its length before it, and the size of the file that it tells of."""
    stop = max(map(int, STOP.findall(text)), default=0)
    return len(text).to_bytes(8, "little") + text, 8 + len(text) + stop


def look(header: Header, how: int) -> None:
    """Which layout it is; a refusal of one story must not hide the other."""
    files = one_file(header)
    if how & FOLDER:
        files = Files([File(NAME.format(layer), header.raw, header) for layer in range(2)])
    if how & GUESS:
        with suppress(CaptureError):
            propose(files)
    name, found = recognised(files, NAMED[how >> 5])
    capture = bind(Zeros(header, files), name, found)
    bound = {(each.tensor.file, each.tensor.name) for each in capture.bindings}
    assert len(bound) + len(capture.others) == len(files.tensors), "a tensor is lost"


def written_again(header: Header) -> None:
    """A header of the same tensors says the same."""
    base = len(header.raw)
    members: dict[str, Any] = {"__metadata__": header.metadata} if header.metadata else {}
    for each in header.tensors:
        offsets = [each.start - base, each.stop - base]
        entry = {"dtype": each.dtype, "shape": list(each.shape), "data_offsets": offsets}
        members[each.name] = entry if each.form is None else {**entry, "fmt": each.form}
    text = json.dumps(members).encode()
    again = parse_header(
        len(text).to_bytes(8, "little") + text, header.file_size - base + 8 + len(text)
    )
    told = [
        [(each.name, each.dtype, each.shape, each.nbytes, each.form) for each in one.tensors]
        for one in (header, again)
    ]
    if told[0] != told[1] or header.metadata != again.metadata:
        raise AssertionError("a header is not read as it was written")


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, data in heads():
        folder = (FOLDER, FOLDER | 1 << 5) if b"kv_cache" in data else ()
        for how in (0, GUESS, OFFICIAL, AGAIN, *folder):
            yield f"{name}, {how}", bytes([how]) + data
    for file in ("headers-valid", "headers-invalid"):
        for case in load(f"capture/{file}")["cases"]:
            if "header" in case:
                yield f"{file} {case['name']}", b"\0" + case["header"].encode()
            if "file_hex" in case:
                yield f"{file} {case['name']}", b"\1" + bytes.fromhex(case["file_hex"])


def heads() -> Iterator[tuple[str, bytes]]:
    """The headers of captures that the containers of the vectors were made from."""
    for name, data in containers():
        reader = Reader(Bytes(data))
        files, _ = load_front(PageOpener(reader), reader.walk())
        for number, file in enumerate(files.files):
            if file.header is not None:
                yield f"source of {name} {number}", file.head[8:]
    for number, text in enumerate(LAYOUTS):
        yield f"layout {number}", text


def _tensors(*tensors: tuple[str, str, list[int]], **metadata: str) -> bytes:
    members: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, dtype, shape in tensors:
        size = math.prod(shape) * ELEMENT_BITS[dtype] // 8
        members[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    return json.dumps(members, separators=(",", ":")).encode()


def _states(classes: int, user: int, *, own: bool) -> dict[str, str]:
    """What mlx-lm says of two layers, by the places of its lists."""
    told = {f"{user}.model": "m"} | {f"{classes}.{layer}": "KVCache" for layer in range(2)}
    numbers = {"2.0": "", "2.1.0": "0.2", "2.1.1": "scalar", "2.2.0": "1.2", "2.2.1": "scalar"}
    return told | (numbers if own else {"0.0": "", "0.1.0": "3", "0.1.1": "4"})


ROWS: Final = [1, 2, 5, 8]
LAYOUTS: Final = (
    *(
        _tensors((key, "F16", ROWS), (value, "BF16", ROWS), model="m", rope_state="post")
        for key, value in (
            ("layers.0.key", "layers.0.value"), ("layer_0_keys", "layer_0_values"),
            ("past_key_values.1.key", "past_key_values.1.value"), ("key_cache.0", "value_cache.0"),
            ("past_key_values.0.0", "past_key_values.0.1"), ("k_0", "v_0"),
            ("blk.0.attn_k", "blk.0.attn_v"), ("keys", "values"),
        )
    ),
    _tensors(("K_layer0", "F32", [5, 2, 8]), ("V_layer0", "F32", [5, 2, 8])),
    _tensors(("key", "F16", [1, 3, *ROWS[1:]]), ("value", "F16", [1, 3, *ROWS[1:]]),
             ("positions", "I64", [5]), axes='["batch","layers","heads","tokens","head_dim"]'),
    _tensors(("0.0", "F16", ROWS), ("0.1", "F16", ROWS), ("0.2", "I32", []), ("1.0", "F16", ROWS),
             ("1.1", "F16", ROWS), ("1.2", "I32", []), **_states(1, 0, own=True)),
    _tensors(("0.0", "F16", ROWS), ("0.1", "F16", ROWS), ("1.0", "F16", ROWS),
             ("1.1", "F16", ROWS), **_states(2, 1, own=False)),
    _tensors(("kv_cache", "F16", [4, 2, 16])),
    _tensors(("kv_cache", "F16", [2, 4, 16]), kv_heads="2", layout="vllm_split"),
    _tensors(("kv_cache", "BF16", [8, 2, 16]), block_size="4", layout="vllm_cpu"),
    _tensors(("kv_cache", "F16", [4, 16])),
    _tensors(("kvcache", "F16", [2, 3, 4, 16]), head_dim="8")[:-2] + b',"fmt":1}}',
    _tensors(("model.layers.0.self_attn.k_proj.weight", "F16", [8, 8]), ("lm_head", "F16", [8, 8])),
    _tensors(("kv", "F8_E4M3", ROWS), ("scale", "F32", [1])),
)  # fmt: skip

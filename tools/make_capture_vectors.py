"""make_capture_vectors: the only writer of formats/vectors/capture/invalid.json.

    python tools/make_capture_vectors.py            write the file
    python tools/make_capture_vectors.py --check    exit 1 if it is not what this prints

Captures that are safetensors files, and yet none that kvq takes: folders, indexes, prompt caches
of mlx-lm, dumps of vLLM and LMCache, tensors that contradict each other. A case is a recipe of
the capture, what the user says of it, and the id that this page states by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from vector_files import exit_code, run

TARGET = Path(__file__).parent.parent / "formats" / "vectors" / "capture"
SHAPE = [1, 2, 3, 4]  # batch, heads, tokens, channels
SHARD = "a.safetensors"
INDEX = "a.index.json"
LAYER = "model.layers.{}.self_attn.attn.safetensors"


def tensor(name: str, shape: list[int] = SHAPE, dtype: str = "F16", **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "paint": 7 * len(name), **more}


def one(*tensors: dict[str, Any], **metadata: str) -> dict[str, Any]:
    """A file of tensors."""
    return {"tensors": list(tensors), **({"metadata": metadata} if metadata else {})}


def layer(number: int = 0) -> dict[str, Any]:
    """A file with keys and values of one layer."""
    return one(tensor(f"layers.{number}.key"), tensor(f"layers.{number}.value"))


def folder(**files: Any) -> dict[str, Any]:
    """A folder; names are given as they are."""
    return {"files": files}


def index(text: str, **files: Any) -> dict[str, Any]:
    """A case of an index of this text, beside a good shard."""
    return {"capture": {"files": {SHARD: layer(), INDEX: {"text": text}, **files}}, "give": INDEX}


def mlx(classes: list[str], *tensors: dict[str, Any]) -> dict[str, Any]:
    """A prompt cache of mlx-lm."""
    told = {"2.0": "", **{f"1.{at}": name for at, name in enumerate(classes)}}
    return {"tensors": list(tensors), "metadata": told}


def dump(names: list[str], shape: list[int] | None = None) -> dict[str, Any]:
    """A folder of vLLM's; without being told more, nobody knows how rows lie in it."""
    return {"files": {name: one(tensor("kv_cache", shape or [4, 2, 8])) for name in names}}


def lmcache(form: int = 1) -> dict[str, Any]:
    members = {"fmt": form, "__metadata__": {"lmcache_version": "1"}}
    return one(tensor("kvcache", [2, 1, 4, 8], members=members))


def case(error: str, why: str, capture: dict[str, Any], **told: Any) -> dict[str, Any]:
    return {"why": why, "capture": capture, **told, "error": error}


def of_index(error: str, why: str, text: str, **files: Any) -> dict[str, Any]:
    return {"why": why, **index(text, **files), "error": error}


LOSSY = {"profile": "int8"}
CASES: dict[str, dict[str, Any]] = {
    "folder-empty": case("E204", "a folder holds a *.safetensors at least", folder()),
    "folder-without-tensors": case(
        "E204", "files of other kinds are no capture", folder(readme={"text": "x"})
    ),
    "folder-damaged-file": case(
        "E201",
        "each file is a safetensors file",
        {"files": {SHARD: layer(), "b.safetensors": {"hex": "00"}}},
    ),
    "folder-foreign-file": case(
        "E209", "a file of another tool is told", {"files": {SHARD: {"hex": "4747554603000000"}}}
    ),
    "folder-backslash": case(
        "E204",
        "a backslash is a separator elsewhere",
        {"files": {SHARD: layer(), "a\\b": {"text": ""}}},
    ),
    "folder-control-character": case(
        "E204", "names are printable", {"files": {SHARD: layer(), "a\x1b[31m": {"text": ""}}}
    ),
    "folder-long-name": case(
        "E204",
        "a name has at most 512 characters",
        {"files": {SHARD: layer(), "/".join(["n" * 200] * 3): {"text": ""}}},
    ),
    "folder-dangling-link": case(
        "E204", "files are regular", {"files": {SHARD: layer(), "b": {"link": "nowhere"}}}
    ),
    "folder-fifo": case(
        "E204", "a pipe is no file", {"files": {SHARD: layer(), "b": {"pipe": True}}}
    ),
    "folder-large-file-beside": case(
        "E207",
        "a file that is carried has at most 8 MiB and 8 bytes",
        {"files": {SHARD: layer(), "b": {"zeros": (8 << 20) + 9}}},
    ),
    "folder-layer-twice": case(
        "E202",
        "no role of a layer is bound twice",
        {"files": {SHARD: layer(), "b.safetensors": layer()}},
    ),
    "index-empty": of_index("E201", "not JSON", ""),
    "index-cut": of_index("E201", "not JSON", '{"weight_map":{'),
    "index-array": of_index("E201", "an object", "[]"),
    "index-duplicate-key": of_index(
        "E201",
        "two readers may take different ones",
        '{"weight_map":{"a":"a.safetensors"},"weight_map":{"a":"b.safetensors"}}',
    ),
    "index-nesting": of_index("E201", "at most 32 levels", '{"a":' + "[" * 40 + "]" * 40 + "}"),
    "index-without-map": of_index("E201", "weight_map is missing", '{"metadata":{}}'),
    "index-map-array": of_index("E201", "weight_map is an object", '{"weight_map":["a"]}'),
    "index-map-empty": of_index("E201", "one file at least", '{"weight_map":{}}'),
    "index-names-number": of_index("E201", "names are text", '{"weight_map":{"a":1}}'),
    "index-names-parent": of_index(
        "E201", "files lie beside it", '{"weight_map":{"a":"../a.safetensors"}}'
    ),
    "index-names-root": of_index(
        "E201", "files lie beside it", '{"weight_map":{"a":"/a.safetensors"}}'
    ),
    "index-names-other-kind": of_index(
        "E201", "files are called *.safetensors", '{"weight_map":{"a":"a.bin"}}'
    ),
    "index-names-backslash": of_index(
        "E204",
        "names are those of a folder's files",
        '{"weight_map":{"a":"a\\\\b.safetensors"}}',
        **{"a\\b.safetensors": layer()},
    ),
    "index-names-control-character": of_index(
        "E204",
        "names are printable",
        '{"weight_map":{"a":"a\\u001b.safetensors"}}',
        **{"a\x1b.safetensors": layer()},
    ),
    "index-names-zero": of_index(
        "E204", "names are printable", '{"weight_map":{"a":"a\\u0000.safetensors"}}'
    ),
    "index-names-missing": of_index(
        "E601", "the file is not there", '{"weight_map":{"a":"b.safetensors"}}'
    ),
    "index-large": {
        "why": "an index has at most 8 MiB",
        "capture": {"files": {SHARD: layer(), INDEX: {"zeros": (8 << 20) + 9}}},
        "give": INDEX,
        "error": "E207",
    },
    "index-file-damaged": of_index(
        "E201",
        "each file is a safetensors file",
        '{"weight_map":{"a":"b.safetensors"}}',
        **{"b.safetensors": {"hex": "02000000000000007b"}},
    ),
    "index-layer-twice": of_index(
        "E202",
        "no role of a layer is bound twice",
        '{"weight_map":{"a":"a.safetensors","b":"b.safetensors"}}',
        **{"b.safetensors": layer()},
    ),
    "no-layout": case("E204", "names that no layout has", one(tensor("k"), tensor("v"))),
    "no-tensors": case("E204", "a header of nothing", one()),
    "weights": case("E209", "a model", one(tensor("model.norm.weight", [4]))),
    "two-spellings": case(
        "E204", "a file keeps to one spelling", one(tensor("layers.0.key"), tensor("k_1"))
    ),
    "layer-with-leading-zero": case(
        "E204",
        "layers are decimal, without leading zeros",
        one(tensor("layers.00.key"), tensor("layers.00.value")),
    ),
    "layer-65536": case("E207", "layers are below 65,536", one(tensor("layers.65536.key"))),
    "too-many-slabs": case(
        "E207",
        "layers times batch entries are at most 65,536",
        one(tensor("key", [65537, 1, 1, 1, 1])),
    ),
    "three-dimensions": case("E204", "an axis too few", one(tensor("key", [2, 3, 4]))),
    "no-tokens": case("E206", "a cache of nothing", one(tensor("key", [1, 1, 2, 0, 4]))),
    "no-channels": case("E206", "a cache of nothing", one(tensor("key", [1, 1, 2, 3, 0]))),
    "batch-contradicts": case(
        "E202",
        "keys and values have one batch",
        one(tensor("layers.0.key"), tensor("layers.0.value", [2, 2, 3, 4])),
    ),
    "heads-contradict": case(
        "E202",
        "keys and values have the same heads",
        one(tensor("layers.0.key"), tensor("layers.0.value", [1, 3, 3, 4])),
    ),
    "tokens-contradict": case(
        "E202",
        "keys and values have the same tokens",
        one(tensor("layers.0.key"), tensor("layers.0.value", [1, 2, 4, 4])),
    ),
    "axes-told-too-few": case(
        "E204",
        "a file that says how it lies is read no other way",
        one(tensor("key", [1, *SHAPE]), layout="layers,heads,tokens,head_dim"),
    ),
    "axes-told-head-dim-first": case(
        "E204",
        "head_dim is last",
        one(tensor("key", SHAPE), layout="head_dim,layers,heads,tokens"),
    ),
    "bytes-under-a-lossy-profile": case(
        "E203",
        "whole numbers are kept as they are, or refused",
        one(tensor("key", [1, *SHAPE], "U8"), tensor("value", [1, *SHAPE], "U8")),
        **LOSSY,
    ),
    "prompt-cache-tensor-of-no-layer": case(
        "E204", "a tensor is of a layer that has a class", mlx(["KVCache"], tensor("1.0"))
    ),
    "prompt-cache-leading-zero": case(
        "E204", "numbers have no leading zeros", mlx(["KVCache"], tensor("00.0"), tensor("00.1"))
    ),
    "prompt-cache-of-other-classes": case(
        "E204",
        "a lossy profile has nothing to quantise",
        mlx(["ArraysCache"], tensor("0.0")),
        **LOSSY,
    ),
    "prompt-cache-quantised": case(
        "E204",
        "a second loss would add to the first",
        mlx(["QuantizedKVCache"], *(tensor(f"0.0.{at}", dtype="U8") for at in range(3))),
        **LOSSY,
    ),
    "prompt-cache-tokens-contradict": case(
        "E202",
        "keys and values have room for the same tokens",
        mlx(["KVCache"], tensor("0.0"), tensor("0.1", [1, 2, 5, 4])),
    ),
    "vllm-in-doubt": case(
        "E204", "shapes do not tell how rows lie", dump([LAYER.format(0)]), **LOSSY
    ),
    "vllm-without-layer": case(
        "E204",
        "a name that tells no layer",
        dump(["attn.safetensors"]),
        layout="vllm",
        **LOSSY,
    ),
    "vllm-layer-twice": case(
        "E204",
        "two files of one layer",
        dump([LAYER.format(0), f"b.{LAYER.format(0)}"]),
        layout="vllm",
        **LOSSY,
    ),
    "vllm-single-file": case(
        "E204", "its name is not looked at", one(tensor("kv_cache", [4, 2, 8])), **LOSSY
    ),
    "vllm-two-dumps": case(
        "E204",
        "each folder is a capture of its own",
        dump([f"a/{LAYER.format(0)}", f"b/{LAYER.format(0)}"]),
    ),
    "vllm-heads-contradict": case(
        "E101",
        "a hint that the shapes contradict",
        dump([LAYER.format(0)], [2, 4, 8]),
        layout="vllm_split",
        meta=["kv_heads=3"],
    ),
    "vllm-odd-block": case(
        "E101",
        "a block is even",
        dump([LAYER.format(0)], [12, 2, 16]),
        layout="vllm_cpu",
        meta=["block_size=3"],
    ),
    "lmcache-unknown-form": case("E204", "another order of axes", lmcache(form=2), **LOSSY),
    "lmcache-two-files": case(
        "E204",
        "nobody tells their order",
        {"files": {"a.kvcache.safetensors": lmcache(), "b.kvcache.safetensors": lmcache()}},
        **LOSSY,
    ),
    "no-such-layout": case("E101", "layouts are a closed list", layer(), layout="hff"),
}


def vectors() -> dict[str, Any]:
    return {
        "about": "what compress refuses; see ../README.md, section What is refused",
        "cases": [
            {"name": name, **told, "exit": exit_code(told["error"])} for name, told in CASES.items()
        ],
    }


def main() -> int:
    return run(__doc__.splitlines()[0], Path(__file__).name, TARGET, {"invalid": vectors()})


if __name__ == "__main__":
    sys.exit(main())

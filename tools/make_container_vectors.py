"""make_container_vectors: the only writer of formats/vectors/container/valid/*.json.

    python tools/make_container_vectors.py             write the files
    python tools/make_container_vectors.py --check     compare them with what would be written

Containers without entropy coding are compared byte for byte, but for the writer's name. Coded
planes depend on the release of libzstd, so that of those with `exact` false only content_root
and the decoded tensors are compared. Vectors are written on purpose, after the spec changed; no
test writes one.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from blake3 import blake3

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "formats" / "vectors" / "container" / "valid"
sys.path.insert(0, str(ROOT / "tests"))

from reference.reader import read  # noqa: E402 - tests/ is no package

from kvq_cli.contract.compat.vector_code import Quantizer  # noqa: E402
from kvq_cli.contract.geometry import KvPageGeometryV1  # noqa: E402
from kvq_cli.contract.kv_profile import KvCompressionProfileV1  # noqa: E402
from kvq_cli.contract.shape import KvTensorShapeV1  # noqa: E402
from kvq_cli.contract.vector_profile import FibQuantProfileV1  # noqa: E402
from kvq_cli.contract.words import (  # noqa: E402
    KvAttentionKind,
    KvAxisPolicyV1,
    KvDType,
    KvRole,
    KvRopeState,
)
from kvq_cli.pipeline import compress, decompress  # noqa: E402
from support.bases import of_layers, tables_of  # noqa: E402
from support.recipes import capture_files  # noqa: E402
from support.surgery import operate  # noqa: E402

PLAIN = {"entropy": "none"}


def tensor(name: str, shape: list[int], dtype: str = "F16", **more: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "paint": 7 * len(name), **more}


def pair(shape: list[int], dtype: str = "F16") -> list[dict[str, Any]]:
    return [tensor("key", shape, dtype), tensor("value", shape, dtype)]


def profile(name: str, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"schema": "kvq_profile_v1", "name": name, "rules": list(rules), **more}


def int8(axis: str, scale: str, **more: Any) -> dict[str, Any]:
    return {"codec": {"name": "int8", "axis": axis, "scale": scale}, **more}


def kv_profile(role: str, policy: str, lengths: list[int], facts: dict[str, str]) -> dict[str, Any]:
    """A KV profile of fib_quant for keys or values of F32 of these lengths."""
    batch, layers, heads, tokens, dim = lengths
    rope = f"{facts['rope_state']}_rope" if role == "key" else "not_applicable"
    shape = KvTensorShapeV1(
        role=KvRole(role),
        attention_kind=KvAttentionKind(facts["attention_kind"]),
        batch=batch,
        layers=layers,
        kv_heads=heads,
        query_heads=int(facts["query_heads"]),
        tokens=tokens,
        head_dim=dim,
        dtype=KvDType.F32,
        rope_state=KvRopeState(rope),
    )
    made = Quantizer.build(FibQuantProfileV1.paper_default(dim, 2, 8, 13))
    bound = KvCompressionProfileV1.from_parts(
        f"{role}-{policy}".replace("_", "-"),
        shape,
        made.profile,
        codebook_digest=made.codebook_digest,
        rotation_digest=made.codebook.rotation_digest,
        axis_policy=KvAxisPolicyV1(policy),
        page_geometry=KvPageGeometryV1.new(min(tokens, 16), dim, 64),
    )
    protected = {"first_tokens_raw": 1, "last_tokens_raw": 0, "raw_layers": [], "raw_heads": [1]}
    return {**bound.to_json(), "protected_policy": protected}


def folder(shape: list[int], dtype: str, layers: list[int]) -> dict[str, Any]:
    """A dump of vLLM, and a file of another kind."""
    names = {layer: f"model.layers.{layer}.self_attn.attn.safetensors" for layer in layers}
    files = {
        name: {"tensors": [tensor("kv_cache", shape, dtype, paint=11 * layer)]}
        for layer, name in names.items()
    }
    return {"files": {"config.json": {"text": "{}"}, **files}}


def calibrated(**more: Any) -> dict[str, Any]:
    """Keys with positions, in pages of two layers and of one, by a calibration of both."""
    codec = {"name": "transform", "step": 16384}
    with tempfile.TemporaryDirectory() as place:
        made = of_layers(3, 2, 4, each=2, pairs=2, coarse=2)
        calibration = made.write(Path(place) / "calibration").read_bytes()
    return {
        "capture": {
            "tensors": [tensor("key", [3, 2, 14, 4]), tensor("value", [3, 2, 14, 4])],
            "metadata": {"rope_state": "post"},
        },
        "calibration": base64.b64encode(calibration).decode(),
        "profile": profile(
            "transform",
            {"codec": codec},
            page_tokens=8,
            protected={"first_tokens": 1},
            storage=PLAIN,
        ),
        **more,
    }


FACTS = {"attention_kind": "gqa", "query_heads": "6", "rope_state": "post"}
RECIPES: dict[str, dict[str, Any]] = {
    "raw": {
        "what": "the smallest: one layer, one head, one token, both roles raw",
        "capture": {"tensors": pair([1, 1, 1, 4])},
        "profile": profile("raw", {"codec": "raw"}, storage=PLAIN),
    },
    "lossless-plain": {
        "what": "lossless BF16 of an odd head_dim, 24 tokens and 2 left over, known shape",
        "capture": {
            "tensors": pair([1, 1, 2, 26, 3], "BF16"),
            "metadata": {
                "attention_kind": "gqa",
                "query_heads": "4",
                "rope_state": "post",
                "model": "vector/µ-model",
                "prompt": "not copied into identity",
            },
        },
        "profile": profile("pages", {"codec": "lossless"}, page_tokens=24, storage=PLAIN),
    },
    "lossless-zstd": {
        "what": "lossless F16 and F32 of unlike head_dim under zstd",
        "capture": {
            "tensors": [tensor("key", [2, 1, 40, 8]), tensor("value", [2, 1, 40, 6], "F32")]
        },
        "profile": profile("lossless", {"codec": "lossless"}),
    },
    "int8-token": {
        "what": "int8 with f32 scales per token; layer 1 and head 1 protected, and tokens",
        "capture": {"tensors": pair([2, 2, 6, 4])},
        "profile": profile(
            "protected",
            int8("token", "f32"),
            fixed_rate=True,
            protected={"first_tokens": 1, "last_tokens": 1, "layers": [[1, 2]], "heads": [[1, 2]]},
        ),
    },
    "int8-channel": {
        "what": "int8 with f16 scales per channel for keys of F32, under zstd; values raw",
        "capture": {"tensors": pair([1, 1, 1, 64, 5], "F32")},
        "profile": profile(
            "channel", int8("channel", "f16", role="key"), {"codec": "raw"}, storage={"level": 3}
        ),
    },
    "ragged": {
        "what": "a tensor a layer, two batch entries, layers of unlike length, one without values",
        "capture": {
            "tensors": [
                tensor("layers.0.key", [2, 1, 3, 4]),
                tensor("layers.0.value", [2, 1, 3, 4]),
                tensor("layers.2.key", [2, 1, 1, 4]),
            ]
        },
        "profile": profile("ragged", int8("token", "f16"), storage=PLAIN),
    },
    "padded": {
        "what": "a cache of mlx-lm: room for 6 tokens, of which 3 and 5 count; zeros behind them",
        "capture": {
            "tensors": [
                tensor("0.0", [2, 1, 6, 4], tokens=3),
                tensor("0.1", [2, 1, 6, 3], tokens=3),
                tensor("0.2", [], "I32", hex="03000000"),
                tensor("1.0", [1, 2, 6, 4], tokens=5),
                tensor("1.1", [1, 2, 6, 4], tokens=5),
                tensor("1.2", [], "I32", hex="05000000"),
            ],
            "metadata": {
                "0.model": "vector",
                "1.0": "KVCache",
                "1.1": "KVCache",
                "2.0": "",
                "2.1.0": "0.2",
                "2.1.1": "scalar",
                "2.2.0": "1.2",
                "2.2.1": "scalar",
            },
        },
        "profile": profile("padded", int8("token", "f16"), fixed_rate=True, storage=PLAIN),
    },
    "extras": {
        "what": "tensors that are not keys or values, one of them empty; no values",
        "capture": {
            "tensors": [
                tensor("positions", [5], "I64"),
                tensor("key", [1, 1, 1, 2, 4]),
                tensor("nothing", [0, 3], "U8"),
                tensor("query", [1, 3], "F64"),
            ]
        },
        "profile": profile("keys", {"codec": "lossless"}, storage={"alignment": 256, **PLAIN}),
    },
    "non-finite": {
        "what": "a NaN in one head, which alone is kept raw; -0 and the largest number",
        "capture": {
            "tensors": [
                tensor("key", [1, 2, 3, 8], bits={"30": "7e01", "1": "8000", "2": "7bff"}),
                tensor("value", [1, 2, 3, 8], bits={"0": "fc00"}),
            ]
        },
        "profile": profile("fallback", int8("token", "f32"), fixed_rate=True),
    },
    "budget": {
        "what": "a quality budget: keys of int4 and of the ladder's int8, values of int4 and raw",
        "capture": {
            "tensors": [tensor("key", [1, 2, 3, 70, 32]), tensor("value", [1, 2, 3, 70, 32])],
        },
        "profile": profile(
            "budget",
            {"codec": "int4"},
            page_tokens=16,
            budget={
                "max_attention_tv": 0.03,
                "max_relative_mse": 0.0028,
                "ladder": [{"role": "key", "codec": "int8"}],
            },
            storage=PLAIN,
        ),
    },
    "fib-quant": {
        "what": "a KV profile: keys per channel in groups of 8 tokens, two tables; a tensor beside",
        "capture": {
            "tensors": [
                tensor("key", [1, 1, 3, 20, 8], "F32"),
                tensor("value", [1, 1, 3, 20, 6], "F32"),
                tensor("positions", [20], "I64"),
            ],
            "metadata": FACTS,
        },
        "profile": kv_profile("key", "per_channel", [1, 1, 3, 20, 8], FACTS),
    },
    "fib-quant-token": {
        "what": "a KV profile: values per token",
        "capture": {
            "tensors": [
                tensor("key", [1, 2, 2, 5, 8], "F32"),
                tensor("value", [1, 2, 2, 5, 8], "F32"),
            ],
            "metadata": {**FACTS, "query_heads": "4"},
        },
        "profile": kv_profile("value", "per_token", [1, 2, 2, 5, 8], {**FACTS, "query_heads": "4"}),
    },
    "folder": {
        "what": "a folder: a tensor of keys and values in a file a layer, layers 0 and 10; int8",
        "capture": folder([5, 2, 8], "BF16", [0, 10]),
        "told": {"layout": "vllm"},
        "profile": profile("tokens", int8("token", "f32"), fixed_rate=True, storage=PLAIN),
    },
    "folder-in-doubt": {
        "what": "a folder of which nobody knows where rows lie: no pages, tensors in TENS",
        "capture": folder([5, 2, 8], "F16", [0, 1]),
        "profile": profile("lossless", {"codec": "lossless"}, storage=PLAIN),
    },
    "heads-in-channels": {
        "what": "a folder: heads and channels in one dimension; keys lossless under zstd",
        "capture": folder([2, 24, 6], "F16", [1]),
        "told": {"layout": "vllm_split", "meta": {"kv_heads": "3"}},
        "profile": profile("mixed", {"codec": "lossless", "role": "key"}, int8("token", "f16")),
    },
    "packed-blocks": {
        "what": "a folder: blocks of tokens that are packed, keys in another order than values",
        "capture": folder([12, 2, 16], "F16", [0]),
        "told": {"layout": "vllm_cpu", "meta": {"block_size": "4"}},
        "profile": profile("pages", {"codec": "lossless"}, page_tokens=8, storage=PLAIN),
    },
    "page-layers": {
        "what": "pages of two layers and, at the end, of one; two pages of tokens each",
        "capture": {"tensors": pair([3, 2, 6, 4])},
        "profile": profile("layers", {"codec": "raw"}, page_layers=2, page_tokens=4, storage=PLAIN),
    },
    "page-layers-unlike": {
        "what": "layers of 3, 3, 5, 5, 5 and 5 tokens in pages of three: those of one length that "
        "are treated alike; layer 3 and head 1 protected, a NaN in layer 4, head 0",
        "capture": {
            "tensors": [
                tensor(
                    f"layers.{layer}.{role}",
                    [2, 2, 3 if layer < 2 else 5, 4],
                    paint=5 * layer + len(role),
                    **({"bits": {"3": "7e01"}} if (layer, role) == (4, "value") else {}),
                )
                for layer in range(6)
                for role in ("key", "value")
            ]
        },
        "profile": profile(
            "unlike",
            int8("token", "f16"),
            page_layers=3,
            fixed_rate=True,
            protected={"layers": [[3, 4]], "heads": [[1, 2]]},
        ),
    },
    "transform": calibrated(what="transform, with its calibration's table; the first token raw"),
    "transform-referred": calibrated(what="transform, whose table lies elsewhere", refer=True),
    "all-layers": {
        "what": "both roles and all layers in one tensor, with members that LMCache adds",
        "capture": {
            "tensors": [
                tensor(
                    "kvcache",
                    [2, 2, 5, 8],
                    members={"fmt": 1, "__metadata__": {"lmcache_version": "1"}},
                )
            ]
        },
        "told": {"layout": "lmcache", "meta": {"head_dim": "4"}},
        "profile": profile("tokens", int8("token", "f32"), fixed_rate=True, storage=PLAIN),
    },
}


def vector(name: str) -> dict[str, Any]:
    """What the file of this name holds; the container is made by kvq and read by both readers."""
    recipe = RECIPES[name]
    capture = capture_files(recipe["capture"])
    with tempfile.TemporaryDirectory() as place:
        source, packed, back = (Path(place) / one for one in ("source", "packed", "back"))
        for one, data in capture.items():
            source.mkdir(exist_ok=True) if one else None
            (source / one).write_bytes(data)
        chosen = Path(place) / "profile.json"
        chosen.write_text(json.dumps(recipe["profile"]))
        told, given = recipe.get("told", {}), {}
        if "calibration" in recipe:
            given["calibration"] = Path(place) / "calibration"
            given["calibration"].write_bytes(base64.b64decode(recipe["calibration"]))
        refer = recipe.get("refer", False)
        terms = {**told, **given, "refer": refer, "threads": 1}
        report = compress(source, packed, profiles=[chosen], **terms)
        decompress(packed, back, threads=1, **(given if refer else {}))
        data, restored = packed.read_bytes(), {one: (back / one).read_bytes() for one in capture}
    container = read(data, tables_of(recipe))
    if container.files() != restored:
        raise SystemExit(f"{name}: the two readers disagree")
    tensors = {name: text(bits) for name, bits in container.named().items()}
    return {
        "name": name,
        **recipe,
        "exact": b'"entropy":"none"' in data,
        "content_root": report.content_root,
        "file_root": report.file_root,
        "source": texts(capture),
        "restored": texts(restored),
        "tensors": tensors,
        "container": base64.b64encode(data).decode(),
    }


def text(data: bytes) -> str:
    return "blake3:" + blake3(data).hexdigest()


def texts(files: dict[str, bytes]) -> Any:
    """The digest of one file, or of each of a folder."""
    found = {name: text(data) for name, data in files.items()}
    return found.get("", found)


def lines(document: dict[str, Any]) -> str:
    """One member a line."""
    members = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return "{\n" + ",\n".join(members) + "\n}\n"


def differs(path: Path, made: dict[str, Any]) -> bool:
    if not path.exists():
        return True
    held = json.loads(path.read_text())
    files = [base64.b64decode(vector["container"]) for vector in (held, made)]
    writer = read(files[0], tables_of(held)).header.storage["writer"]
    renamed = operate(files[1], [{"set": "/header/storage/writer", "to": writer}])
    if made["exact"] and renamed != files[0]:
        return True
    same = {"file_root": held["file_root"], "container": held["container"]}
    return path.read_text() != lines({**made, **same})


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    check = arguments.parse_args().check
    wrong = [path.name for path in FOLDER.glob("*.json") if path.stem not in RECIPES]
    for name in RECIPES:
        path, made = FOLDER / f"{name}.json", vector(name)
        if not check:
            path.write_text(lines(made))
        elif differs(path, made):
            wrong.append(path.name)
    for file in wrong:
        print(f"{file} is not what the tool writes", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())

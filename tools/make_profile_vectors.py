"""make_profile_vectors: writes formats/vectors/profile/{valid,invalid,calibration-invalid}.json.

    python tools/make_profile_vectors.py            write the files
    python tools/make_profile_vectors.py --check    exit 1 if a file is not what this prints

A valid case is a document, its normal form and its digest, as the code gives them. An
invalid case is a JSON Patch (RFC 6902) of `base`, or a text, with the id and the JSON
pointer that this page states by hand. `schema` says what a JSON Schema makes of it:
"refuses", "cannot" (it has no words for it) or "no json"; of calibrations, which have no JSON
Schema, it says nothing.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from kvq_cli.profile import builtin_names, parse_profile
from kvq_cli.profile.builtin import FOLDER
from vector_files import Refusals, run

TARGET = Path(__file__).parent.parent / "formats" / "vectors" / "profile"
DIGEST = "blake3:" + "0123456789abcdef" * 4
LARGE = 2**32 - 1


def document(**members: Any) -> dict[str, Any]:
    return {"schema": "kvq_profile_v1", "name": "case", "rules": [{"codec": "raw"}]} | members


VALID: dict[str, tuple[str, dict[str, Any]]] = {
    "no-rules": ("no rule at all: everything is lossless", document(rules=[])),
    "catch-all": ("a last rule that matches everything is followed by none", document()),
    "codec-object": (
        "an object without parameters is the codec's name",
        document(rules=[{"codec": {"name": "raw"}}]),
    ),
    "codec-parameters": (
        "parameters stand beside the name",
        document(rules=[{"role": "key", "codec": {"name": "int8", "axis": "channel"}}]),
    ),
    "codec-defaults": (
        "a parameter that is missing has its default",
        document(rules=[{"role": "value", "codec": "int8"}]),
    ),
    "one-selector": (
        "a last rule with a selector is followed by lossless",
        document(rules=[{"role": "value", "codec": "raw"}]),
    ),
    "early-catch-all": (
        "only the last rule counts, even if an earlier one matches everything",
        document(rules=[{"codec": "raw"}, {"role": "key", "codec": "lossless"}]),
    ),
    "selectors": (
        "ranges stay as they are: order, overlap, negative numbers",
        document(
            rules=[
                {
                    "role": "key",
                    "layers": [[-2, None], [0, 2], [1, 3]],
                    "heads": [[0, 1], [-1, None]],
                    "tokens": [[-128, None], [0, 4], [2, -2], [-9, 3]],
                    "codec": "raw",
                }
            ]
        ),
    ),
    "range-limits": (
        "the largest numbers of a range",
        document(rules=[{"tokens": [[-LARGE, LARGE], [LARGE, None]], "codec": "raw"}]),
    ),
    "all-null": (
        "null is the default of every optional member",
        {
            "schema": "kvq_profile_v1",
            "name": "case",
            "description": None,
            "page_tokens": None,
            "page_layers": None,
            "rules": [
                {"role": None, "layers": None, "heads": None, "tokens": None, "codec": "raw"}
            ],
            "protected": None,
            "fallback": None,
            "budget": None,
            "fixed_rate": None,
            "calibration_digest": None,
            "target": None,
            "storage": None,
        },
    ),
    "inner-null": (
        "likewise inside objects",
        document(
            protected={"first_tokens": None, "last_tokens": None, "layers": None, "heads": None},
            budget={"max_logit_mse": None, "on_violation": None},
            storage={"entropy": None, "level": None, "alignment": None},
        ),
    ),
    "protected": (
        "every kind of protection",
        document(
            protected={
                "first_tokens": 4,
                "last_tokens": LARGE,
                "layers": [[0, 1], [-1, None]],
                "heads": [[3, 4]],
            }
        ),
    ),
    "budget": (
        "bounds are float64, whole numbers and -0.0 too",
        document(
            budget={
                "max_logit_mse": 1,
                "max_attention_tv": 0.01,
                "max_topk_disagreement": -0.0,
                "max_value_aggregation_mse": 1e-7,
                "max_relative_mse": 1.5e300,
                "min_attention_cosine": -1,
                "on_violation": "fail_closed",
            }
        ),
    ),
    "budget-with-a-ladder": (
        "rungs for one role or both, codecs written out",
        document(
            budget={
                "max_attention_tv": 0.02,
                "ladder": [{"codec": "int8"}, {"role": "key", "codec": {"name": "fp8_e4m3"}}],
            }
        ),
    ),
    "budget-without-bounds": (
        "a budget without a bound is none",
        document(budget={"on_violation": "fail_closed"}),
    ),
    "fixed-rate": (
        "fixed rate turns entropy coding off",
        document(fixed_rate=True, storage={"entropy": "zstd", "level": 3}),
    ),
    "storage": (
        "storage does not change the digest: it is that of catch-all",
        document(storage={"entropy": "none", "level": 22, "alignment": 2097152}),
    ),
    "description": (
        "neither does the description, in any script",
        document(description='keys \u00e9 \u4e2d \U0001f5dd " \\ \n'),
    ),
    "fail-closed": ("a fallback that is not the default", document(fallback="fail_closed")),
    "calibration": ("a calibration's digest", document(calibration_digest=DIGEST)),
    "page-limits": ("the largest page", document(page_tokens=65536, name="A" + "-._z0" * 12)),
    "page-layers": ("pages of several layers", document(page_layers=4096)),
    "page-layers-of-one": (
        "one layer is the default, and not written out: the digest is that of catch-all",
        document(page_layers=1),
    ),
    "transform": (
        "the codec transform, whose step is its own; of its calibration nothing is known",
        document(rules=[{"codec": {"name": "transform", "step": 3000}}]),
    ),
    "target-of-bits": (
        "a step for so many bits an element, in a rule and a rung; a calibration is named",
        document(
            rules=[{"role": "key", "codec": "transform"}],
            budget={"max_attention_tv": 0.5, "ladder": [{"codec": {"name": "transform"}}]},
            target={"bits": 2},
            calibration_digest=DIGEST,
        ),
    ),
    "target-of-error": (
        "a step for an error; what is null is not there",
        document(
            rules=[{"codec": {"name": "transform", "turned": False}}],
            target={"relative_mse": 0.015625, "bits": None},
        ),
    ),
    "target-of-attention": (
        "a step for attention",
        document(
            rules=[{"codec": "transform"}],
            target={"max_attention_tv": 0.125},
        ),
    ),
    "example": (
        "the example of formats/profile.md",
        {
            "schema": "kvq_profile_v1",
            "name": "keys8",
            "page_tokens": 256,
            "rules": [
                {"role": "key", "layers": [[0, 2], [-2, None]], "codec": "raw"},
                {
                    "role": "key",
                    "tokens": [[0, -128]],
                    "codec": {"name": "int8", "axis": "token"},
                },
            ],
            "protected": {"first_tokens": 4},
            "budget": {"max_attention_tv": 0.01},
        },
    ),
}

BASE = document(
    name="base",
    description="what every invalid case starts from",
    page_tokens=128,
    rules=[
        {"role": "key", "layers": [[0, 2]], "codec": {"name": "int8", "axis": "token"}},
        {"codec": "lossless"},
    ],
    protected={"first_tokens": 4, "layers": [[0, 1]]},
    fallback="keep_raw",
    budget={"max_attention_tv": 0.01, "on_violation": "keep_raw"},
    fixed_rate=False,
    storage={"entropy": "zstd", "level": 1, "alignment": 64},
)

# Each line: path of the patch, the value that is put there, id, pointer where it differs.
PUT: list[tuple[str, Any, str, str | None]] = [
    ("/schema", "kvq_profile_v2", "E403", None),
    ("/schema", "kvq_profile", "E401", None),
    ("/schema", "", "E401", None),
    ("/schema", 1, "E401", None),
    ("/schema", None, "E401", None),
    ("/name", "", "E401", None),
    ("/name", "-first", "E401", None),
    ("/name", "a b", "E401", None),
    ("/name", "a/b", "E401", None),
    ("/name", "line\n", "E401", None),
    ("/name", "\u00e9", "E401", None),
    ("/name", "a" * 65, "E401", None),
    ("/name", 8, "E401", None),
    ("/name", None, "E401", None),
    ("/description", 1, "E401", None),
    ("/description", "x" * 2001, "E404", None),
    ("/page_tokens", 0, "E401", None),
    ("/page_tokens", -1, "E401", None),
    ("/page_tokens", 65537, "E401", None),
    ("/page_tokens", 1.5, "E401", None),
    ("/page_tokens", True, "E401", None),
    ("/page_tokens", "256", "E401", None),
    ("/page_layers", 0, "E401", None),
    ("/page_layers", 4097, "E401", None),
    ("/page_layers", True, "E401", None),
    ("/rules", None, "E401", None),
    ("/rules", {}, "E401", None),
    ("/rules", "int8", "E401", None),
    ("/rules/0", "int8", "E401", None),
    ("/rules/0", [], "E401", None),
    ("/rules/0/side", "key", "E401", None),
    ("/rules/0/role", "keys", "E401", None),
    ("/rules/0/role", "KEY", "E401", None),
    ("/rules/0/role", 0, "E401", None),
    ("/rules/0/layers", [], "E401", None),
    ("/rules/0/layers", [0, 2], "E401", "/rules/0/layers/0"),
    ("/rules/0/layers", "0:2", "E401", None),
    ("/rules/0/layers", {"start": 0}, "E401", None),
    ("/rules/0/layers/0", [0], "E401", None),
    ("/rules/0/layers/0", [0, 1, 2], "E401", None),
    ("/rules/0/layers/0", [], "E401", None),
    ("/rules/0/layers/0", [None, 2], "E401", "/rules/0/layers/0/0"),
    ("/rules/0/layers/0", [0, 2.5], "E401", "/rules/0/layers/0/1"),
    ("/rules/0/layers/0", [False, True], "E401", "/rules/0/layers/0/0"),
    ("/rules/0/layers/0", ["0", "2"], "E401", "/rules/0/layers/0/0"),
    ("/rules/0/layers/0", [0, LARGE + 1], "E401", "/rules/0/layers/0/1"),
    ("/rules/0/layers/0", [-LARGE - 1, None], "E401", "/rules/0/layers/0/0"),
    ("/rules/0/layers/0", [-4, 0], "E401", None),
    ("/rules/0/heads", [[0, 1], [0]], "E401", "/rules/0/heads/1"),
    ("/rules/0/heads", 0, "E401", None),
    ("/rules/0/tokens", [[0, 1]] * 257, "E404", None),
    ("/rules/0/tokens", [None], "E401", "/rules/0/tokens/0"),
    ("/rules/1/codec", None, "E401", None),
    ("/rules/1/codec", 8, "E401", None),
    ("/rules/1/codec", [], "E401", None),
    ("/rules/1/codec", "", "E503", None),
    ("/rules/1/codec", "int9", "E503", None),
    ("/rules/1/codec", {}, "E401", None),
    ("/rules/1/codec", {"name": "int9"}, "E503", "/rules/1/codec/name"),
    ("/rules/1/codec", {"name": 8}, "E401", "/rules/1/codec/name"),
    ("/rules/1/codec", {"name": "raw", "axis": "token"}, "E401", "/rules/1/codec/axis"),
    ("/rules/0/codec/axis", "row", "E401", None),
    ("/rules/0/codec/axis", 1, "E401", None),
    ("/rules/0/codec/bits", 8, "E401", None),
    ("/protected", [], "E401", None),
    ("/protected/tokens", 4, "E401", None),
    ("/protected/first_tokens", -1, "E401", None),
    ("/protected/first_tokens", 0.5, "E401", None),
    ("/protected/last_tokens", LARGE + 1, "E401", None),
    ("/protected/layers", [0], "E401", "/protected/layers/0"),
    ("/protected/heads", [[0, 1]] * 257, "E404", None),
    ("/protected/heads", [[-1, 0]], "E401", "/protected/heads/0"),
    ("/fallback", "raw", "E401", None),
    ("/fallback", True, "E401", None),
    ("/budget", 0.01, "E401", None),
    ("/budget/max_attention_kl", 1.0, "E401", None),
    ("/budget/max_attention_tv", -0.01, "E401", None),
    ("/budget/max_logit_mse", "0.01", "E401", None),
    ("/budget/max_relative_mse", True, "E401", None),
    ("/budget/min_attention_cosine", 1.01, "E401", None),
    ("/budget/min_attention_cosine", -1.01, "E401", None),
    ("/budget/on_violation", "raw", "E401", None),
    ("/budget/ladder", {"codec": "int8"}, "E401", None),
    ("/budget/ladder", ["int8"], "E401", "/budget/ladder/0"),
    ("/budget/ladder", [{"role": "key"}], "E401", "/budget/ladder/0"),
    ("/budget/ladder", [{"codec": "int8", "layers": []}], "E401", "/budget/ladder/0/layers"),
    ("/budget/ladder", [{"codec": "int9"}], "E503", "/budget/ladder/0/codec"),
    ("/budget/ladder", [{"codec": "int8", "role": "query"}], "E401", "/budget/ladder/0/role"),
    ("/budget/ladder", 17 * [{"codec": "int8"}], "E404", None),
    ("/fixed_rate", 1, "E401", None),
    ("/fixed_rate", "true", "E401", None),
    ("/calibration_digest", "", "E401", None),
    ("/calibration_digest", "missing:calibration", "E401", None),
    ("/calibration_digest", DIGEST.upper(), "E401", None),
    ("/calibration_digest", DIGEST + "0", "E401", None),
    ("/calibration_digest", DIGEST + "\n", "E401", None),
    ("/target", 2, "E401", None),
    ("/target", {}, "E401", None),
    ("/target", {"bits": None}, "E401", None),
    ("/target", {"bits": 2, "relative_mse": 0.1}, "E401", None),
    ("/target", {"bits": 0}, "E401", "/target/bits"),
    ("/target", {"bits": 64.5}, "E401", "/target/bits"),
    ("/target", {"bits": "2"}, "E401", "/target/bits"),
    ("/target", {"bits": 2, "ratio": 8}, "E401", "/target/ratio"),
    ("/rules/0/codec", {"name": "transform", "step": 0}, "E401", "/rules/0/codec/step"),
    ("/storage", "zstd", "E401", None),
    ("/storage/threads", 2, "E401", None),
    ("/storage/entropy", "lz4", "E401", None),
    ("/storage/level", 0, "E401", None),
    ("/storage/level", -5, "E401", None),
    ("/storage/level", 23, "E401", None),
    ("/storage/alignment", 32, "E401", None),
    ("/storage/alignment", 96, "E401", None),
    ("/storage/alignment", 4194304, "E401", None),
    ("/Name", "x", "E401", None),
    ("/a~1b~0c", 1, "E401", None),
]

# Refused by the parser; a JSON Schema has no words for it.
BEYOND: list[tuple[str, Any, str, str | None]] = [
    ("/page_tokens", 256.0, "E401", None),
    ("/page_layers", 2.0, "E401", None),
    ("/rules/0/layers/0", [2, 2], "E401", None),
    ("/rules/0/layers/0", [3, 2], "E401", None),
    ("/rules/0/layers/0", [-2, -2], "E401", None),
    ("/rules/0/tokens", [[0, 4], [-2, -3]], "E401", "/rules/0/tokens/1"),
    ("/protected/layers", [[1, 1]], "E401", "/protected/layers/0"),
    ("/storage/alignment", 64.0, "E401", None),
    ("/target", {"bits": 2}, "E401", None),
    ("/rules/0/codec", "transform", "E401", "/rules"),
    ("/rules/0/codec", {"name": "transform", "basis": DIGEST}, "E401", "/rules/0/codec"),
]

REMOVED = [("/schema", ""), ("/name", ""), ("/rules", ""), ("/rules/1/codec", "/rules/1")]

TEXTS: dict[str, tuple[str, str, str]] = {
    "empty": ("", "E401", "no json"),
    "array": ("[]", "E401", "refuses"),
    "null": ("null", "E401", "refuses"),
    "string": ('"int8"', "E401", "refuses"),
    "nan": (
        '{"schema":"kvq_profile_v1","name":"x","rules":[],"page_tokens":NaN}',
        "E401",
        "no json",
    ),
    "infinity": (
        '{"schema":"kvq_profile_v1","name":"x","rules":[],"budget":{"max_logit_mse":1e999}}',
        "E401",
        "no json",
    ),
    "duplicate-key": (
        '{"schema":"kvq_profile_v1","name":"x","name":"y","rules":[]}',
        "E401",
        "no json",
    ),
    "duplicate-inner-key": (
        '{"schema":"kvq_profile_v1","name":"x","rules":[{"codec":"raw","codec":"int8"}]}',
        "E401",
        "no json",
    ),
    "trailing-comma": ('{"schema":"kvq_profile_v1","name":"x","rules":[],}', "E401", "no json"),
    "trailing-text": ('{"schema":"kvq_profile_v1","name":"x","rules":[]} x', "E401", "no json"),
    "byte-order-mark": (
        '\ufeff{"schema":"kvq_profile_v1","name":"x","rules":[]}',
        "E401",
        "no json",
    ),
    "half-surrogate": (
        '{"schema":"kvq_profile_v1","name":"x","rules":[],"description":"\\ud800"}',
        "E401",
        "no json",
    ),
    "deep": ('{"schema":' + "[" * 40 + "]" * 40 + "}", "E401", "no json"),
    "long-number": ('{"page_tokens":' + "1" * 41 + "}", "E401", "no json"),
}


CALIBRATION = {
    "schema": "kvq_calibration_v1",
    "layers": 2,
    "kv_heads": [2, 3],
    "key": {
        "head_dim": 8,
        "rows": 40,
        "mean_norm": 2.5,
        "max_norm": 9.75,
        "outlier_rows": 1,
        "outlier_channels": [[0, 1, 3], [1, 0, 3]],
        "mean_energy": 0.5,
        "axis": "channel",
    },
    "value": None,
    "first_tokens": 1,
    "profile": "int8",
    "bits_per_element": 8.25,
}

# As PUT, of calibrations.
UNSOUND: list[tuple[str, Any, str, str | None]] = [
    ("/schema", "kvq_calibration_v2", "E401", None),
    ("/layers", 0, "E401", None),
    ("/layers", 2.0, "E401", None),
    ("/layers", 2**53, "E401", None),
    ("/layers", 3, "E401", "/kv_heads"),
    ("/kv_heads", 2, "E401", None),
    ("/kv_heads", [2, 0], "E401", None),
    ("/kv_heads", [2, True], "E401", None),
    ("/kv_heads", [2, "3"], "E401", None),
    ("/key", [], "E401", None),
    ("/key/head_dim", 0, "E401", None),
    ("/key/rows", -1, "E401", None),
    ("/key/mean_norm", -0.5, "E401", None),
    ("/key/max_norm", "9.75", "E401", None),
    ("/key/outlier_rows", None, "E401", None),
    ("/key/outlier_channels", {}, "E401", None),
    ("/key/outlier_channels", [[0, 1]], "E401", None),
    ("/key/outlier_channels", [[0, 1, -1]], "E401", None),
    ("/key/outlier_channels", [[0, 1, True]], "E401", None),
    ("/key/outlier_channels", [[1, 0, 3], [0, 1, 3]], "E401", None),
    ("/key/outlier_channels", [[0, 1, 3], [0, 1, 3]], "E401", None),
    ("/key/outlier_channels", [[0, 0, at] for at in range(1025)], "E404", None),
    ("/key/mean_energy", True, "E401", None),
    ("/key/axis", "head", "E401", None),
    ("/key/seen", 1, "E401", None),
    ("/value", 0, "E401", None),
    ("/first_tokens", -1, "E401", None),
    ("/first_tokens", 1.5, "E401", None),
    ("/profile", 8, "E401", None),
    ("/bits_per_element", "8", "E401", None),
    ("/bits_per_element", -8.25, "E401", None),
    ("/host", "here", "E401", None),
]
NEEDED = ["/layers", "/kv_heads", "/key/rows", "/key/outlier_channels", "/first_tokens"]
UNREADABLE = {
    "cut": '{"schema":"kvq_calibration_v1","layers":2',
    "duplicate key": '{"schema":"kvq_calibration_v1","layers":2,"layers":2}',
    "nan": '{"schema":"kvq_calibration_v1","layers":NaN}',
    "number beyond float64": '{"schema":"kvq_calibration_v1","layers":1e999}',
    "half a surrogate pair": '{"schema":"kvq_calibration_v1","profile":"\\ud800"}',
}


def valid() -> dict[str, Any]:
    builtins = {
        f"builtin-{name}": (
            "a built-in profile",
            json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")),
        )
        for name in builtin_names()
    }
    cases = []
    for name, (about, source) in (VALID | builtins).items():
        profile = parse_profile(source)
        normal = {"normal_form": profile.to_json(), "digest": profile.digest()}
        cases.append({"id": name, "about": about, "profile": source} | normal)
    return {
        "about": "documents, their normal forms and digests: formats/profile.md",
        "cases": cases,
    }


def invalid() -> dict[str, Any]:
    refused = Refusals()
    refused.add_patches({"refuses": PUT, "cannot": BEYOND}, REMOVED)
    for name, (text, error, schema) in TEXTS.items():
        refused.add(f"text {name}", error, "", text=text, schema=schema)
    return {
        "about": "what a reader refuses: patches of base, or texts",
        "base": BASE,
        "cases": refused.cases,
    }


def calibrations() -> dict[str, Any]:
    refused = Refusals()
    refused.add_patches({None: UNSOUND}, [])
    for path in NEEDED:
        patch = [{"op": "remove", "path": path}]
        refused.add(f"without {path}", "E401", path.rsplit("/", 1)[0], patch=patch)
    for name, text in UNREADABLE.items():
        refused.add(f"text {name}", "E401", "", text=text)
    return {
        "about": "what a reader of calibrations refuses: patches of base, or texts",
        "base": CALIBRATION,
        "cases": refused.cases,
    }


def main() -> int:
    files = {"valid": valid(), "invalid": invalid(), "calibration-invalid": calibrations()}
    return run(__doc__.splitlines()[0], Path(__file__).name, TARGET, files)


if __name__ == "__main__":
    sys.exit(main())

"""make_layout_map_vectors: writes formats/vectors/layout_map/{valid,invalid}.json.

    python tools/make_layout_map_vectors.py            write both files
    python tools/make_layout_map_vectors.py --check    exit 1 if a file is not what this prints

A valid case is a map, and tensors with the `rows` that it gives them, as the code binds them. An
invalid case is a JSON Patch (RFC 6902) of `base`, a text, or a map with a tensor that it cannot
bind, with the id and the JSON pointer that this page states by hand. `schema` says what a JSON
Schema makes of it: "refuses", "cannot" (it has no words for it), "no json" or "accepts".
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from kvq_cli.capture.files import File, Files
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.layout_map import parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.capture.writer import header_bytes
from vector_files import Refusals, run

TARGET = Path(__file__).parent.parent / "formats" / "vectors" / "layout_map"
SPLIT = {"k": "key", "v": "value"}
NAMED = r"blk\.(?P<layer>\d+)\.(?P<role>k|v)"


def document(*rules: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"schema": "kvq_layout_map_v1", "rules": list(rules)} | members


def rule(name: str = NAMED, **members: Any) -> dict[str, Any]:
    told = {"roles": SPLIT} if "?P<role>" in name and "role" not in members else {}
    return {"name": name, "axes": "HTD", **told, **members}


# Name of the case: what it is about, the map, and tensors as file, name, shape.
VALID: dict[str, tuple[str, dict[str, Any], list[tuple[str | None, str, list[int]]]]] = {
    "five-lines": (
        "layer and role from the name; another tensor is kept",
        document(rule()),
        [(None, "blk.0.k", [2, 5, 8]), (None, "blk.12.v", [2, 5, 8]), (None, "ids", [5])],
    ),
    "first-rule": (
        "the first rule that matches decides",
        document(rule("a.*", role="value"), rule("ab", role="key")),
        [(None, "ab", [2, 5, 8])],
    ),
    "both": (
        "one tensor of both roles, layers and batch",
        document(rule("cache", role="both", axes="LRBHTD")),
        [(None, "cache", [3, 2, 1, 2, 5, 8])],
    ),
    "shared-dimension": (
        "heads and channels in one dimension",
        document(rule("kv", role="both", axes="R,T,HD", lengths={"H": 4})),
        [(None, "kv", [2, 5, 32])],
    ),
    "halves": (
        "R shares a dimension, and needs no length",
        document(rule("kv", role="both", axes="T,H,RD")),
        [(None, "kv", [5, 3, 16])],
    ),
    "blocks": (
        "tokens in blocks of t",
        document(rule("kv", role="both", axes="RTtHD")),
        [(None, "kv", [2, 3, 16, 4, 8])],
    ),
    "channel-major": (
        "channels before tokens",
        document(rule(axes="HDT")),
        [(None, "blk.0.k", [2, 8, 5])],
    ),
    "heads-apart": (
        "a tensor for each head; numbers count from 1",
        document(
            rule(r"l(?P<layer>\d+)h(?P<head>\d+)", role="key", axes="TD")
            | {"first_layer": -1, "first_head": -1}
        ),
        [(None, "l1h1", [5, 8]), (None, "l1h2", [5, 8]), (None, "l07h1", [5, 8])],
    ),
    "files": (
        "the layer in the file's name, whatever the folder",
        document(rule("kv", file=r"(?:.*/)?model\.(?P<layer>\d+)\.safetensors", role="key")),
        [("a/b/model.3.safetensors", "kv", [2, 5, 8]), ("x.safetensors", "kv", [2, 5, 8])],
    ),
    "no-folder": (
        "a rule with a file is for folders only",
        document(rule("kv", file=".*", role="key"), rule("kv", role="value")),
        [(None, "kv", [2, 5, 8])],
    ),
    "optional-group": (
        "a group that took no part",
        document(rule(r"k(?:_(?P<layer>\d+))?", role="key", first_layer=4)),
        [(None, "k", [2, 5, 8]), (None, "k_1", [2, 5, 8])],
    ),
    "digits-are-kept": (
        "repeated digits give none back; sets do",
        document(rule(r"a\d+1", role="key"), rule("b[0-9]+1", role="key")),
        [(None, "a11", [2, 5, 8]), (None, "b11", [2, 5, 8])],
    ),
    "long-names": (
        "256 characters are matched, 257 are not",
        document(rule(".*", role="key")),
        [(None, "n" * 256, [2, 5, 8]), (None, "n" * 257, [2, 5, 8])],
    ),
    "any-character": (
        "line breaks and other scripts are characters; digits are ASCII",
        document(rule(r"a.\d", role="key")),
        [(None, "a\n1", [2, 5, 8]), (None, "a中1", [2, 5, 8]), (None, "a1٣", [2, 5, 8])],
    ),
    "all-null": (
        "null is the default of every optional member",
        document(
            rule(file=None, lengths=None, first_layer=None, first_head=None),
            description=None,
            facts={"model": None},
        ),
        [(None, "blk.0.k", [2, 5, 8])],
    ),
    "facts": (
        "what the files do not tell",
        document(rule(), facts={"model": "m", "attention_kind": "gqa", "rope_state": "post"}),
        [(None, "blk.0.v", [2, 5, 8])],
    ),
}

BASE = document(
    rule(axes="B,HT,D", lengths={"H": 2}, first_layer=0),
    rule("kv", role="both", axes="RHTD", file="x"),
    facts={"model": "m"},
)

# Each line: path of the patch, the value that is put there, id, pointer where it differs.
PUT: list[tuple[str, Any, str, str | None]] = [
    ("/schema", "kvq_layout_map_v2", "E403", None),
    ("/schema", "kvq_profile_v1", "E401", None),
    ("/schema", 1, "E401", None),
    ("/description", "x" * 2001, "E404", None),
    ("/name", "x", "E401", None),
    ("/rules", [], "E401", None),
    ("/rules", {}, "E401", None),
    ("/rules", [rule()] * 257, "E404", None),
    ("/rules/0", "k", "E401", None),
    ("/rules/0/layers", 1, "E401", None),
    ("/rules/0/name", 1, "E401", None),
    ("/rules/0/name", "k" * 257, "E401", None),
    ("/rules/0/axes", "", "E401", None),
    ("/rules/0/axes", "HTX", "E401", None),
    ("/rules/0/axes", "htd", "E401", None),
    ("/rules/0/axes", "B,,HT,D", "E401", None),
    ("/rules/0/axes", ",HT,D", "E401", None),
    ("/rules/0/axes", ["B", "T"], "E401", None),
    ("/rules/0/lengths", {"X": 1}, "E401", "/rules/0/lengths/X"),
    ("/rules/0/lengths", {"R": 2}, "E401", "/rules/0/lengths/R"),
    ("/rules/0/lengths/H", 0, "E401", None),
    ("/rules/0/lengths/H", 1.5, "E401", None),
    ("/rules/0/lengths/H", True, "E401", None),
    ("/rules/0/lengths/H", 2**32, "E401", None),
    ("/rules/0/roles", {}, "E401", None),
    ("/rules/0/roles", {"k": "keys"}, "E401", "/rules/0/roles/k"),
    ("/rules/0/roles", {"a/b": "both"}, "E401", "/rules/0/roles/a~1b"),
    ("/rules/0/roles", {str(at): "key" for at in range(17)}, "E404", None),
    ("/rules/0/first_layer", 65536, "E401", None),
    ("/rules/0/first_layer", "1", "E401", None),
    ("/rules/0/first_head", -65536, "E401", None),
    ("/rules/1/role", "keys", "E401", None),
    ("/rules/1/role", 0, "E401", None),
    ("/rules/1/file", 1, "E401", None),
    ("/facts", "m", "E401", None),
    ("/facts/prompt", "x", "E401", None),
    ("/facts/model", 1, "E401", None),
    ("/facts/model", "", "E401", None),
    ("/facts/model", "x" * 4097, "E401", None),
    ("/facts/attention_kind", "multi", "E401", None),
    ("/facts/query_heads", "08", "E401", None),
    ("/facts/rope_state", "yes", "E401", None),
]

# Refused by the parser; a JSON Schema has no words for it.
BEYOND: list[tuple[str, Any, str, str | None]] = [
    ("/rules/0/role", "key", "E401", None),
    ("/rules/0/axes", "HTTD", "E401", None),
    ("/rules/0/axes", "HT", "E401", None),
    ("/rules/0/axes", "RHTD", "E401", None),
    ("/rules/0/axes", "BHT,D", "E401", None),
    ("/rules/1/axes", "HTD", "E401", None),
    ("/rules/0/lengths", {"B": 1, "L": 1}, "E401", "/rules/0/lengths/L"),
    ("/rules/0/lengths/H", 2.0, "E401", None),
    ("/facts/model", "/home/me/model", "E401", None),
    ("/rules/1/file", r"(?P<role>k|v)", "E401", "/rules/1/role"),
    ("/rules/0/file", r"(?P<layer>\d+)", "E401", None),
    *(
        ("/rules/1/name", name, "E401", None)
        for name in (
            "^kv", "kv$", "k{2}", "(k", "k)", "(?i)k", "(?=k)", "(?!k)", r"(?P<k>x)(?P=k)", r"\b",
            r"k\n", "[k", "[]k]", "[^]", "[z-a]", "[a--z]", "[[:alpha:]]", "k**", "k+?", "k++",
            "*k", "(|*)", "(k+)+", "(k)*", "(?:k){3}", "(?P<name>k)", "(?P<Layer>k)",
            r"(?P<layer>\d)(?P<layer>\d)", ".*.*.*", "[a-z]+[a-z]*a+", "k?" * 20, "(a|b|c)" * 12,
            "\\",
        )
    ),
]  # fmt: skip

REMOVED = [
    ("/schema", ""),
    ("/rules", ""),
    ("/rules/0/name", "/rules/0"),
    ("/rules/0/roles", "/rules/0"),
    ("/rules/0/axes", "/rules/0"),
    ("/rules/1/role", "/rules/1"),
]

TEXTS: dict[str, tuple[str, str]] = {
    "empty": ("", "no json"),
    "array": ("[]", "refuses"),
    "duplicate-key": ('{"schema":"kvq_layout_map_v1","rules":[],"rules":[]}', "no json"),
    "nan": ('{"schema":"kvq_layout_map_v1","rules":NaN}', "no json"),
}

# Maps that can be read, and a tensor that they cannot bind.
UNFIT: dict[str, tuple[dict[str, Any], str, list[int], str]] = {
    "rank": (document(rule()), "blk.0.k", [1, 2, 5, 8], "E204"),
    "length": (
        document(rule("k", role="key", axes="T,HD", lengths={"H": 3})),
        "k",
        [5, 32],
        "E204",
    ),
    "no-two": (document(rule("k", role="both", axes="RHTD")), "k", [3, 2, 5, 8], "E204"),
    "role": (document(rule(r"(?P<role>\w)")), "q", [2, 5, 8], "E204"),
    "no-role": (document(rule("k(?P<role>v)?")), "k", [2, 5, 8], "E204"),
    "no-number": (document(rule(r"(?P<layer>\w+)", role="key")), "x", [2, 5, 8], "E204"),
    "below-zero": (
        document(rule(r"(?P<layer>\d)", role="key", first_layer=-1)),
        "0",
        [2, 5, 8],
        "E204",
    ),
    "large-number": (document(rule(r"(?P<layer>\d+)", role="key")), "123456", [2, 5, 8], "E204"),
    "large-layer": (document(rule(r"(?P<layer>\d+)", role="key")), "65536", [2, 5, 8], "E207"),
    "large-last-layer": (
        document(rule(r"(?P<layer>\d+)", role="key", axes="LTD")),
        "65535",
        [2, 5, 8],
        "E207",
    ),
}


def files_of(tensors: list[tuple[str | None, str, list[int]]]) -> Files:
    """Headers of F16 tensors, one file for each name of a file."""
    files = []
    for file in sorted({file for file, _, _ in tensors}, key=str):
        mine = [(name, "F16", tuple(shape)) for each, name, shape in tensors if each == file]
        raw = header_bytes(mine, {})
        size = len(raw) + sum(2 * math.prod(shape) for _, _, shape in mine)
        files.append(File(file, raw, parse_header(raw, size)))
    return Files(files)


def rows_of(layout_map: dict[str, Any], tensors: list[Any]) -> list[dict[str, Any]]:
    """Each tensor with the rows that the map gives it."""
    files = files_of(tensors)
    found = recognise(parse_map(layout_map), files)
    bound = {(each.tensor.file, each.tensor.name): each for each in found.bindings} if found else {}
    told = []
    for file, name, shape in tensors:
        binding = bound.get((files.tensor(name, file).file, name))
        rows = None
        if binding is not None:
            rows = {
                "roles": [role.word for role in binding.roles],
                "axes": binding.axes,
                "lengths": dict(binding.lengths),
                "first_layer": binding.first_layer,
                "first_head": binding.first_head,
            }
        told.append({"file": file, "name": name, "shape": shape, "rows": rows})
    return told


def valid() -> dict[str, Any]:
    cases = [
        {"id": name, "about": about, "layout_map": made, "tensors": rows_of(made, tensors)}
        for name, (about, made, tensors) in VALID.items()
    ]
    return {"about": "layout maps and what they bind: formats/layout_map.md", "cases": cases}


def invalid() -> dict[str, Any]:
    refused = Refusals()
    refused.add_patches({"refuses": PUT, "cannot": BEYOND}, REMOVED)
    for name, (text, schema) in TEXTS.items():
        refused.add(f"text {name}", "E401", "", text=text, schema=schema)
    for name, (made, tensor, shape, error) in UNFIT.items():
        case = {"layout_map": made, "tensor": tensor, "shape": shape}
        refused.add(f"unfit {name}", error, None, **case, schema="accepts")
    return {
        "about": "what a reader refuses: patches of base, texts, tensors that do not suit a map",
        "base": BASE,
        "cases": refused.cases,
    }


def main() -> int:
    files = {"valid": valid(), "invalid": invalid()}
    return run(__doc__.splitlines()[0], Path(__file__).name, TARGET, files)


if __name__ == "__main__":
    sys.exit(main())

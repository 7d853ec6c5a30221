"""consistency: what members of a header must say of each other, one lie at a time."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

from kvq_cli import digest, jsontext
from kvq_cli.errors import ContainerError, KvqError
from support.manifests import changed, checked, header_of

RAW = header_of("raw")
PLAIN = header_of("int8-token")  # two layers, two heads, six tokens
FOLDER = header_of("folder")  # config.json, and layers 0 and 10
BLOCKS = header_of("packed-blocks")
KNOWN = header_of("fib-quant")  # shapes known in full, KV profiles
DIGEST = "blake3:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name",
    ["raw", "lossless-plain", "int8-token", "ragged", "extras", "folder", "all-layers",
     "packed-blocks", "padded", "heads-in-channels", "fib-quant", "budget"],
)  # fmt: skip
def test_headers_of_the_vectors(name):
    """They are without contradiction."""
    checked(header_of(name))


def refusal(header: dict[str, Any]) -> str | None:
    try:
        checked(header)
    except KvqError as error:
        if isinstance(error, ContainerError):
            assert error.offset == 64  # noqa: PT017 - of others the reader tells the place
        return error.error_id
    return None


def rows(**members: Any) -> dict[str, Any]:
    return {f"tensors__0__rows__{name}": value for name, value in members.items()}


TENSOR = RAW["content"]["tensors"][0]
EXTRA = TENSOR | {"name": "more", "rows": None}
LIES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # tensors by themselves
    (RAW, {"tensors__0__dtype": "X"}, "E304"),
    (RAW, {"tensors__0__nbytes": 7}, "E304"),
    (RAW, {"tensors__0__nbytes": 9}, "E304"),
    (RAW, {"tensors__0__shape": [1, 1, 1, 3], **rows(lengths={"L": 1, "H": 1, "T": 1, "D": 3}),
           "tensors__0__nbytes": 6}, "E304"),
    (RAW, {"tensors__2": EXTRA | {"nbytes": 1}}, "E304"),
    (RAW, {"tensors__2": EXTRA | {"dtype": "F4", "shape": [3], "nbytes": 1}}, "E304"),
    (RAW, {"tensors__2": EXTRA | {"name": "key"}}, "E304"),
    # their files
    (RAW, {"tensors__1__file": 1}, "E304"),
    (FOLDER, {"tensors__0__file": 2, "tensors__1__file": 1}, "E304"),
    (FOLDER, {"tensors__1__file": 3}, "E304"),
    (FOLDER, {"tensors__0__file": 0}, "E304"),
    (FOLDER, {"files__1__digest": DIGEST}, "E304"),
    (FOLDER, {"tensors__1__file": 1}, "E304"),
    # their rows and the parts
    (RAW, {"tensors__0": ...}, "E304"),
    (RAW, {"tensors__0__rows": None}, "E304"),
    (RAW, {"parts__0__value": None}, "E304"),
    (RAW, rows(first_layer=1), "E304"),
    (RAW, rows(first_head=1), "E304"),
    (RAW, rows(roles=["value"]), "E304"),
    (RAW, rows(lengths={"L": 1, "H": 1, "T": 1, "D": 8}), "E304"),
    (RAW, rows(lengths={"L": 1, "H": 1, "T": 2, "D": 4}), "E304"),
    (PLAIN, rows(tokens=5), "E304"),
    (PLAIN, rows(lengths={"L": 2, "H": 2, "T": 12, "D": 2}), "E304"),
    (PLAIN, rows(lengths={"L": 1, "H": 4, "T": 6, "D": 4}), "E304"),
    (PLAIN, rows(lengths={"L": 4, "H": 1, "T": 6, "D": 4}), "E304"),
    (PLAIN, rows(axes="BLHTD", lengths={"B": 2, "L": 1, "H": 2, "T": 6, "D": 4}), "E304"),
    (PLAIN, {"tensors__0__dtype": "BF16"}, "E304"),
    (PLAIN, {"parts__0__layers": [[0, 1]], "parts__0__key__shape__layers": 1,
             "parts__0__value__shape__layers": 1}, "E304"),
    (PLAIN, {"parts__0__layers": [[0, 3]], "parts__0__key__shape__layers": 3,
             "parts__0__value__shape__layers": 3}, "E304"),
    (FOLDER, {"tensors__1__rows__first_layer": 9}, "E304"),
    (FOLDER, {"tensors__1__rows__first_layer": 0}, "E304"),
    # shapes and their parts
    *((PLAIN, {f"parts__0__{role}__shape__{name}": wrong}, "E304")
      for role in ("key", "value")
      for name, wrong in (("role", "keys"), ("batch", 2), ("layers", 1), ("kv_heads", 1),
                          ("tokens", 7), ("head_dim", 8), ("dtype", "F16"),
                          ("schema_version", "x"), ("more", None), ("rope_state", ...),
                          ("attention_kind", ...), ("query_heads", ...), ("batch", ...))),
    (PLAIN, {"parts__0__value__shape__rope_state": None}, "E304"),
    (PLAIN, {"parts__0__value__shape__rope_state": "post_rope"}, "E304"),
    (PLAIN, {"parts__0__key__shape_digest": DIGEST}, "E304"),
    (KNOWN, {"parts__0__key__shape_digest": None}, "E304"),
    (KNOWN, {"parts__0__key__shape_digest": DIGEST}, "E303"),
    (KNOWN, {"parts__0__value__shape_digest":
             KNOWN["content"]["parts"][0]["key"]["shape_digest"]}, "E303"),
    # segments
    (RAW, {"token_offset": 1}, "E304"),
    (RAW, {"continues": DIGEST}, "E304"),
    # profiles
    (RAW, {"profiles": []}, "E304"),
    (RAW, {"profiles__0__roles": ["key"]}, "E304"),
    (RAW, {"profiles__0__roles": ["value"]}, "E304"),
    (RAW, {"profiles__0__roles": ["key", "key"]}, "E304"),
    (RAW, {"profiles__0__roles": ["key", "value", "value"]}, "E304"),
    (RAW, {"profiles__0__roles": ["key", "values"]}, "E304"),
    (RAW, {"profiles__1": RAW["content"]["profiles"][0] | {"roles": ["key"]}}, "E304"),
    (RAW, {"profiles__0__digest": DIGEST}, "E303"),
    (RAW, {"profiles__0__profile__name": "other"}, "E303"),
    (KNOWN, {"profiles__0__digest": DIGEST}, "E303"),
    (KNOWN, {"profiles__1__digest": DIGEST}, "E303"),
    (RAW, {"profiles__0__profile": {}}, "E401"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "members", "error"), LIES, ids=range(len(LIES)))
def test_one_lie(header, members, error):
    """Each is refused, although all the rest agrees."""
    assert refusal(changed(header, **members)) == error


ALLOWED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (RAW, {"tensors__2": EXTRA}),
    (RAW, {"tensors__2": EXTRA | {"dtype": "F4", "shape": [4], "nbytes": 2}}),
    (RAW, {"tensors__2": EXTRA | {"shape": [0], "nbytes": 0}}),
    (RAW, {"tensors": [], "parts": []}),
    (RAW, {"token_offset": 1, "continues": DIGEST}),
    (RAW, {"profiles__0__roles": ["value", "key"]}),
    (RAW, {"profiles__0__roles": ["value"],
           "profiles__1": RAW["content"]["profiles"][0] | {"roles": ["key"]}}),
    (FOLDER, {"files__0__digest": DIGEST}),
    (FOLDER, {"files__0__digest": None}),
    (PLAIN, {"parts__0__key__shape__query_heads": 4}),
]  # fmt: skip


@pytest.mark.parametrize(("header", "members"), ALLOWED, ids=range(len(ALLOWED)))
def test_what_is_no_lie(header, members):
    """Headers that look odd, and say nothing wrong."""
    assert refusal(changed(header, **members)) is None


def split_by_heads(*heads: tuple[int, int]) -> dict[str, Any]:
    """PLAIN, whose keys lie in a tensor for each range of heads: first head and how many."""
    header = copy.deepcopy(PLAIN)
    key, value = header["content"]["tensors"]
    made = []
    for number, (first, count) in enumerate(heads):
        one = copy.deepcopy(key) | {"name": str(number), "shape": [2, count, 6, 4]}
        one["nbytes"] = 96 * count
        one["rows"] |= {"first_head": first, "lengths": {"D": 4, "H": count, "L": 2, "T": 6}}
        made.append(one)
    header["content"]["tensors"] = [*made, value]
    return header


@pytest.mark.parametrize(
    ("heads", "good"),
    [
        ([(0, 2)], True),
        ([(0, 1), (1, 1)], True),
        ([(1, 1), (0, 1)], True),
        ([], False),
        ([(0, 1)], False),
        ([(1, 1)], False),
        ([(0, 3)], False),
        ([(0, 2), (0, 2)], False),
        ([(0, 2), (1, 1)], False),
        ([(0, 1), (0, 1)], False),
        ([(0, 1), (2, 1)], False),
        ([(0, 1), (1, 2)], False),
        ([(1, 2)], False),
    ],
)
def test_each_head_once(heads, good):
    """However tensors share them; none is missing, twice, or beyond the last."""
    assert (refusal(split_by_heads(*heads)) is None) == good


def blocks(tokens_within: int) -> dict[str, Any]:
    """BLOCKS with so many tokens in the inner step, of 64 bytes each."""
    header = copy.deepcopy(BLOCKS)
    content = header["content"]
    tensor, part = content["tensors"][0], content["parts"][0]
    tokens = 3 * tokens_within * 2
    tensor["rows"]["lengths"]["t"] = tokens_within
    tensor["rows"]["tokens"] = part["tokens"] = tokens
    tensor["shape"] = [tokens, 2, 16]
    tensor["nbytes"] = math.prod(tensor["shape"]) * 2
    for role in ("key", "value"):
        part[role]["shape"]["tokens"] = tokens
    return header


def test_blocks_of_64_mebibytes():
    """As large as a page may be, and no larger."""
    assert refusal(blocks(2)) is None
    assert refusal(blocks(1 << 20)) is None
    assert refusal(blocks((1 << 20) + 1)) == "E304"


def test_blocks_hold_all_heads():
    """A tensor of split tokens cannot be one of several of its layer."""
    header = copy.deepcopy(BLOCKS)
    content = header["content"]
    first = content["tensors"][0]
    first["rows"]["lengths"] |= {"H": 1}
    first |= {"shape": [12, 2, 8], "nbytes": 384}
    second = copy.deepcopy(first) | {"name": "more"}
    second["rows"]["first_head"] = 1
    content["tensors"] = [first, second]
    assert refusal(header) == "E304"


def test_the_digest_of_a_profile():
    """Of its canonical text under its schema; of a KV profile, what its page says."""
    stated = RAW["content"]["profiles"][0]
    text = jsontext.canonical(stated["profile"])
    assert stated["digest"] == digest.json_digest("kvq_profile_v1", text)


def lost(**members: Any) -> dict[str, Any]:
    partial = {"header_digest": DIGEST, "content_root": None}
    return {"partial": partial | {"files": [], "tables": [], "tensors": []} | members}


EXTRAS = header_of("extras")  # tensors 0 and 3 are carried, 40 and 24 bytes; 2 is empty
MIB4 = 1 << 22


@pytest.mark.parametrize(
    ("header", "members", "good"),
    [
        (RAW, lost(), True),
        (RAW, lost(files=[0]), True),
        (RAW, lost(files=[1]), False),
        (FOLDER, lost(files=[0, 1, 2]), True),
        (FOLDER, lost(files=[3]), False),
        (KNOWN, lost(tables=[0, 1]), True),
        (KNOWN, lost(tables=[2]), False),
        (RAW, lost(tables=[0]), False),
        (EXTRAS, lost(tensors=[[0, 0], [3, 0]]), True),
        (EXTRAS, lost(tensors=[[1, 0]]), False),
        (EXTRAS, lost(tensors=[[2, 0]]), False),
        (EXTRAS, lost(tensors=[[4, 0]]), False),
        (EXTRAS, lost(tensors=[[0, 8]]), False),
        (EXTRAS, lost(tensors=[[0, -MIB4]]), False),
        (EXTRAS, lost(tensors=[[0, MIB4]]), False),
    ],
    ids=range(15),
)
def test_what_is_lost_was_once_there(header, members, good):
    """Files, tables and pieces of tensors that a whole container has."""
    assert refusal(changed(header, **members)) == (None if good else "E304")


@pytest.mark.parametrize(("pieces", "good"), [([MIB4], True), ([2 * MIB4], False), ([7], False)])
def test_lost_pieces_of_a_long_tensor(pieces, good):
    """Pieces begin every four MiB."""
    long = {"tensors__0__shape": [MIB4 // 8 + 1], "tensors__0__nbytes": MIB4 + 8}
    members = long | lost(tensors=[[0, at] for at in pieces])
    assert refusal(changed(EXTRAS, **members)) == (None if good else "E304")

"""Proposals: known spellings get the axes that they have, and what is not known is told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.capture import recognised
from kvq_cli.capture.files import File, Files
from kvq_cli.capture.guess import propose
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.layout_map import parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.capture.writer import header_bytes
from kvq_cli.errors import CaptureError
from kvq_cli.words import ELEMENT_BITS, Role

KV = ("k", "v")
WORDS = ("key", "value")
BOTH = tuple(Role)


def files(tensors, metadata=None, name=None):
    """Headers alone; a tensor is name, dtype, shape."""
    told = [(name, dtype, tuple(shape)) for name, dtype, shape in tensors]
    raw = header_bytes(told, metadata or {})
    size = sum(math.prod(shape) * ELEMENT_BITS[dtype] // 8 for _, dtype, shape in told)
    return Files([File(name, raw, parse_header(raw, len(raw) + size))])


def each(spelling, shape, roles=KV, heads=1, layers=4, dtype="F16"):
    """A tensor for each layer, role and head; shapes may differ by role."""
    return [
        (spelling.format(n=layer, r=role, h=head), dtype, shapes[role])
        for shapes in [shape if isinstance(shape, dict) else dict.fromkeys(roles, shape)]
        for layer in range(layers)
        for role in roles
        for head in range(heads)
    ]


# Tensors, and for each role (or both) the axes; whether anything is doubted.
KNOWN = {
    "transformer.h": (each("transformer.h.{n}.attn.{r}", (1, 8, 300, 64)), ["BHTD"], False),
    "blk": (each("blk.{n}.{r}_cache", (8, 300, 64)), ["HTD"], False),
    "cache_k": (each("cache_{r}_{n}", (300, 8, 64)), ["THD"], False),
    "kv": (each("kv.{n}", (2, 1, 8, 300, 64), [""]), ["RBHTD"], False),
    "kv-unbatched": (each("kv.{n}", (2, 8, 300, 64), [""]), ["RHTD"], False),
    "heads-apart": (
        each("model.layers.{n}.head.{h}.{r}", (300, 64), WORDS, heads=3),
        ["TD"],
        False,
    ),
    "heads-unnamed": (each("l{n}_h{h}_{r}", (300, 64), heads=3), ["TD"], True),
    "glued": (each("layer{n}{r}", (300, 8, 64), ("Key", "Value")), ["THD"], False),
    "stacked": (each("{r}", (4, 8, 300, 64), layers=1), ["LHTD"], False),
    "stacked-both": ([("cache", "F16", (12, 2, 1, 8, 300, 64))], ["LRBHTD"], False),
    "all-in-one": ([("kvcache", "F16", (2, 30, 256, 1024))], ["R,L,T,HD"], True),
    "flat": (each("L{n}_{r}", (300, 512)), ["T,HD"], True),
    "halves": (each("layers.{n}.kv_cache", (300, 8, 128), [""]), ["T,H,RD"], True),
    "blocks": (each("layers.{n}.kv", (2, 100, 16, 8, 64), [""]), ["RTtHD"], True),
    "channels-first": (each("m.{n}.{r}", (1, 8, 64, 300)), ["BHDT"], True),
    "keys-turned": (
        each("m.{n}.{r}", {"k": (1, 8, 64, 300), "v": (1, 8, 300, 64)}),
        ["BHDT", "BHTD"],
        True,
    ),
    "zero-and-one": (each("{n}.{r}", (1, 8, 300, 64), ("0", "1")), ["BHTD"], True),
    "short": (each("layers.{n}.self.{r}", (1, 4, 32, 64)), ["BHTD"], True),
    "short-with-ids": (
        [*each("layers.{n}.self.{r}", (1, 32, 5, 128)), ("token_ids", "I64", (5,))],
        ["BHTD"],
        False,
    ),
    "ragged": (
        [(f"m.{n}.{r}", "BF16", (1, 8, 64 + n, 64)) for n in range(3) for r in KV],
        ["BHTD"],
        False,
    ),
    "one-role": (each("layers.{n}.k", (8, 300, 64), [""]), ["HTD"], True),
    "vals": (each("l.{n}.{r}", (8, 300, 64), ("keys", "vals")), ["HTD"], False),
    "two-kinds": (
        each("layers.{n}.self.{r}", (1, 8, 300, 64)) + each("layers.{n}.cross.{r}", (1, 8, 9, 64)),
        ["BHTD"],
        True,
    ),
}


@pytest.mark.parametrize("case", KNOWN.values(), ids=KNOWN)
def test_known_spellings(case):
    """The proposal has these axes, can be used as it is, and doubts where there is doubt."""
    tensors, axes, doubted = case
    found = propose(files(tensors))
    assert [rule["axes"] for rule in found.layout_map["rules"]] == axes
    assert found.complete
    assert bool(found.doubts) == doubted, found.doubts


def test_what_metadata_tells_is_used():
    """Heads, head_dim and tokens of the metadata leave no doubt."""
    tensors = each("L{n}_{r}", (32, 192))
    told = {"kv_heads": "6", "head_dim": "32", "tokens": "32"}
    found = propose(files(tensors, told))
    (rule,) = found.layout_map["rules"]
    assert (rule["axes"], rule["lengths"], found.doubts) == ("T,HD", {"H": 6}, ())
    (rule,) = propose(files(each("a.{n}.{r}", (1, 64, 16, 64)), {"tokens": "16"})).layout_map[
        "rules"
    ]
    assert rule["axes"] == "BHTD"


def test_layers_in_the_names_of_files():
    """A folder of one tensor a file: the rule has the file's name, whatever the folder."""
    parts = [
        files(
            [("kv_cache", "BF16", (2, 300, 8, 64))], name=f"970a09/m.layers.{at}.safetensors"
        ).files
        for at in range(3)
    ]
    whole = Files([part[0] for part in parts])
    (rule,) = propose(whole).layout_map["rules"]
    assert rule["file"] == r"(?:.*/)?m\.layers\.(?P<layer>\d+)\.safetensors"
    assert (rule["name"], rule["role"], rule["axes"]) == ("kv_cache", "both", "RTHD")
    found = recognise(parse_map({"schema": "kvq_layout_map_v1", "rules": [rule]}), whole)
    assert [binding.first_layer for binding in found.bindings] == [0, 1, 2]


def test_latents_are_left_to_the_user():
    """One row a token is no keys and values: a template, which is refused as it is."""
    found = propose(files(each("layers.{n}.kv_cache", (300, 576), [""])))
    assert not found.complete
    assert found.layout_map["rules"][0]["axes"] == "?"
    assert "latents" in found.doubts[-1]
    with pytest.raises(Exception, match="/rules/0/axes"):
        parse_map(found.layout_map)


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        (
            each("model.layers.{n}.self_attn.{r}_proj.weight", (512, 512), ("q", "k", "v")),
            "weights",
        ),
        (each("h.{n}.attn.{r}", (512, 512), ("q", "k", "v", "o")), "weights"),
        (each("layers.{n}.attention.{r}", (512, 512), ("wq", "wk", "wv", "wo")), "weights"),
        (each("blk.{n}.attn_{r}.weight", (512, 512), ("q", "k", "v")), "weights"),
        (
            each("l.{n}.{r}.packed", (1, 8, 300, 8), dtype="U32")
            + each("l.{n}.{r}.x", (1, 8, 300, 1)),
            "packed",
        ),
        ([("query", "F16", (1, 6, 12, 64, 32)), ("positions", "I64", (64,))], "no tensor"),
        ([("x", "F32", ())], "no tensor"),
        ([], "no tensor"),
    ],
)
def test_what_is_no_cache(tensors, why):
    """Weights, packed numbers and others are refused in one line."""
    with pytest.raises(CaptureError, match=why) as refusal:
        propose(files(tensors))
    named = any(name.endswith(".weight") for name, _, _ in tensors)
    assert refusal.value.error_id == ("E209" if named else "E204")


SPELLED = st.from_regex(r"[a-z]{0,3}[._]?(k|v|kv|key|0|1|h)?[._]?[0-9]{0,2}", fullmatch=True)
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
TENSOR = st.tuples(
    st.sampled_from(["F16", "F32", "I32", "F8_E4M3"]),
    st.lists(st.sampled_from([0, 1, 2, 3, 16, 64, 300]), max_size=6)
    | st.lists(st.sampled_from([0, 1, 70_000]), max_size=3),
)
HEADERS = st.dictionaries(SPELLED | ANY, TENSOR, max_size=6)
METADATA = st.dictionaries(
    st.sampled_from(["tokens", "kv_heads", "head_dim"]), st.text("019", max_size=3)
)


@settings(deadline=None)
@given(HEADERS, METADATA)
def test_any_header_gets_a_proposal_or_a_refusal(headers, metadata):
    """Nothing but CaptureError; a complete proposal is a map that binds something."""
    tensors = [
        (name, *told) for name, told in headers.items() if math.prod(filter(None, told[1])) < 2**50
    ]
    made = files(tensors, metadata)
    try:
        found = propose(made)
    except CaptureError as error:
        assert error.error_id == "E204"  # noqa: PT017
        return
    if found.complete:
        assert recognise(parse_map(found.layout_map), made).bindings


def test_the_hint_is_told():
    """Where no layout fits, the refusal names --guess."""
    with pytest.raises(CaptureError, match="--guess"):
        recognised(files(each("blk.{n}.{r}_cache", (8, 300, 64))))

"""Profiles: every member at its limits and beyond, normal forms, ladders and cautions."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.digest import json_digest
from kvq_cli.errors import ProfileError
from kvq_cli.jsontext import canonical
from kvq_cli.profile import Profile, Range, Rule, cautions, parse_profile, runs
from kvq_cli.profile.model import BOUNDS
from kvq_cli.words import Role

DIGEST = "blake3:" + "0123456789abcdef" * 4
U32 = 2**32 - 1
RAW, LOSSLESS, INT8 = (codec_from_json(name, {}, "") for name in ("raw", "lossless", "int8"))
# A normal form: every member is there, and none has its default.
WHOLE: dict[str, Any] = {
    "schema": "kvq_profile_v1",
    "name": "whole",
    "description": "all of it",
    "page_tokens": 16,
    "page_layers": 3,
    "rules": [
        {"role": "key", "layers": [[0, 2], [-1, None]], "heads": [[1, 3]], "tokens": [[0, -5]],
         "codec": {"name": "int8", "axis": "channel", "center": False, "scale": "f16"}},
        {"role": "value", "layers": None, "heads": None, "tokens": None, "codec": {"name": "raw"}},
        {"role": None, "layers": None, "heads": None, "tokens": None,
         "codec": {"name": "lossless"}},
    ],
    "protected": {"first_tokens": 1, "last_tokens": 2, "layers": [[3, 4]], "heads": [[-5, None]]},
    "fallback": "fail_closed",
    "budget": {
        **dict(zip(BOUNDS, (0.5, 0.25, 0.125, 1.5, 2.5, -0.5), strict=True)),
        "ladder": [{"role": "key", "codec": {"name": "raw"}},
                   {"role": None, "codec": {"name": "lossless"}}],
        "on_violation": "fail_closed",
    },
    "fixed_rate": False,
    "calibration_digest": DIGEST,
    "storage": {"entropy": "none", "level": 9, "alignment": 4096},
}  # fmt: skip
PAIRS = [[0, 1]] * 256
RULE = {"codec": "raw"}
# Members, what they may be, what they may not be, and the error then.
MEMBERS: dict[str, tuple[list[Any], list[Any], str]] = {
    "name": (["a", "A-b.c_9", "9", "a" * 64], ["a" * 65, "", "a b", ".a", "_a", "a\n", 7], "E401"),
    "description": (["", "x" * 2000], ["x" * 2001], "E404"),
    "page_tokens": ([1, 65536], [0, 65537, 1.0], "E401"),
    "page_layers": ([2, 4096], [0, 4097, 1.0], "E401"),
    "rules": ([[]], [RULE, [RULE, 7]], "E401"),
    "schema": ([], ["kvq_profile", "kvq_profile_v", "xkvq_profile_v1", "kvq_profile_v1x"], "E401"),
    "protected__first_tokens": ([0, U32], [-1, U32 + 1], "E401"),
    "protected__last_tokens": ([0, U32], [-1, U32 + 1], "E401"),
    "protected__layers": ([[], PAIRS], [[[1, 1]], [[0]], {}], "E401"),
    "protected__heads": ([[], PAIRS], [[[1, 1]], [[0]], {}], "E401"),
    "rules__0__layers": ([[[0, 1]], PAIRS], [[], [[2, 1]], [[0, 1, 2]], "x"], "E401"),
    "rules__0__heads": ([[[0, 1]], PAIRS], [[], [[2, 1]], [[0, 1, 2]], "x"], "E401"),
    "rules__0__tokens": (
        [[[-U32, U32]], [[U32 - 1, U32]], [[-1, None]], [[-2, -1]], [[5, -5]], [[-5, 5]], PAIRS],
        [[[-U32 - 1, None]], [[0, U32 + 1]], [[0, -U32 - 1]], [[0, 0]], [[-1, 0]], [[1, 1]],
         [[-1, -1]], [[-1, -2]], [[2, 1]]],
        "E401",
    ),
    "rules__0__role": ([None, "key", "value"], ["keys", "", 0], "E401"),
    "fallback": (["keep_raw", "fail_closed"], ["raw", ""], "E401"),
    "budget__on_violation": (["keep_raw", "fail_closed"], ["raw", ""], "E401"),
    "budget__ladder": ([[], [RULE | {"role": None}] * 16], [[RULE | {"layers": []}]], "E401"),
    "fixed_rate": ([False], [0, "false"], "E401"),
    "calibration_digest": ([None, DIGEST], ["", DIGEST + "0", 7], "E401"),
    "storage__entropy": (["zstd", "none"], ["lz4", ""], "E401"),
    "storage__level": ([1, 22], [0, 23], "E401"),
    "storage__alignment": ([64, 128, 1 << 21], [63, 65, 96, 127, 1 << 22, 0, -64], "E401"),
    **{f"budget__{bound}": ([0.0, 0.5, 1e300, None], [-1e-9, "1"], "E401")
       for bound in BOUNDS if bound.startswith("max_")},
    "budget__min_attention_cosine": ([-1.0, 0.0, 1.0, None], [-1.0001, 1.0001], "E401"),
    "storage__more": ([], [None], "E401"),
    "protected__more": ([], [None], "E401"),
    "budget__more": ([], [None], "E401"),
    "rules__0__more": ([], [None], "E401"),
    "more": ([], [None], "E401"),
}  # fmt: skip
GOOD = [(name, value) for name, (good, _, _) in MEMBERS.items() for value in good]
BAD = [(name, value, error) for name, (_, bad, error) in MEMBERS.items() for value in bad]


def changed(name: str, value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(WHOLE)
    *way, last = [int(step) if step.isdigit() else step for step in name.split("__")]
    holder: Any = whole
    for step in way:
        holder = holder[step]
    holder[last] = value
    return whole


def labels(cases: list[Any]) -> list[str]:
    return [f"{name}={str(value)[:30]}" for name, value, *_ in cases]


@pytest.mark.parametrize(("name", "value"), GOOD, ids=labels(GOOD))
def test_what_a_member_may_be(name, value):
    """It is read, and the normal form has it back; short forms are written out."""
    whole = changed(name, value)
    normal = parse_profile(whole).to_json()
    if name == "rules":
        assert normal["rules"] == WHOLE["rules"][2:]
    elif name == "budget__ladder" and value:
        assert normal["budget"]["ladder"] == [{"role": None, "codec": {"name": "raw"}}] * 16
    else:
        assert normal == whole


@pytest.mark.parametrize(("name", "value", "error"), BAD, ids=labels(BAD))
def test_what_a_member_may_not_be(name, value, error):
    """It is refused, and named by its pointer."""
    with pytest.raises(ProfileError) as refusal:
        parse_profile(changed(name, value))
    assert refusal.value.error_id == error
    pointer = "/" + name.replace("__", "/")
    assert f"{refusal.value.pointer}/".startswith(f"{pointer}/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rules__0__layers", [[0, 1]] * 257),
        ("protected__heads", [[0, 1]] * 257),
        ("budget__ladder", [RULE] * 17),
        ("rules", [RULE] * 4097),
    ],
)
def test_too_many(name, value):
    """One more than may be read is a limit."""
    with pytest.raises(ProfileError) as refusal:
        parse_profile(changed(name, value))
    assert refusal.value.error_id == "E404"
    assert refusal.value.pointer == "/" + name.replace("__", "/")


@pytest.mark.parametrize("schema", ["kvq_profile_v2", "kvq_profile_v10", "kvq_profile_v0"])
def test_profiles_of_another_kvq(schema):
    """E403, and not a wrong field."""
    with pytest.raises(ProfileError) as refusal:
        parse_profile(changed("schema", schema))
    assert (refusal.value.error_id, refusal.value.pointer) == ("E403", "/schema")


def test_where_an_unknown_codec_was_written():
    """The pointer is that of the name, in either form."""
    for codec, pointer in (("int9", "/rules/0/codec"), ({"name": "int9"}, "/rules/0/codec/name")):
        with pytest.raises(ProfileError) as refusal:
            parse_profile(changed("rules__0__codec", codec))
        assert (refusal.value.error_id, refusal.value.pointer) == ("E503", pointer)


def test_the_normal_form():
    """The same JSON, and the digest of it without what changes no packed byte."""
    profile = parse_profile(WHOLE)
    assert profile.to_json() == WHOLE
    content = {key: each for key, each in WHOLE.items() if key not in ("description", "storage")}
    assert profile.content_json() == content
    assert profile.digest() == json_digest("kvq_profile_v1", canonical(content))


@pytest.mark.parametrize("bound", BOUNDS)
def test_one_bound_is_a_budget(bound):
    """Whichever it is; none is no budget, whatever else stands there."""
    made = parse_profile(changed("budget", {bound: 0.5})).budget
    assert made is not None
    assert {name: getattr(made, name) for name in BOUNDS} == {
        name: 0.5 if name == bound else None for name in BOUNDS
    }
    none = changed("budget", {bound: None, "ladder": [RULE], "on_violation": "fail_closed"})
    assert parse_profile(none).budget is None


def test_fixed_rate_takes_no_entropy_coder():
    """Pages of one size are not coded, whatever storage says."""
    coded = changed("storage", {"entropy": "zstd"}) | {"fixed_rate": True}
    assert parse_profile(coded).to_json()["storage"]["entropy"] == "none"
    plain = changed("storage", {"entropy": "zstd"})
    assert parse_profile(plain).to_json()["storage"]["entropy"] == "zstd"


def test_defaults_are_those_of_the_records():
    """A profile of what must be there is one that was made of the same."""
    made = Profile("p", (Rule(RAW),))
    assert parse_profile({"schema": "kvq_profile_v1", "name": "p", "rules": [RULE]}) == made
    assert made.to_json()["storage"] == {"entropy": "zstd", "level": 1, "alignment": 64}


def test_tables_decide_nothing():
    """Two profiles that differ in what they bring along are equal, and do not show it."""
    made = Profile("p", (Rule(RAW),))
    more = dataclasses.replace(made, tables={"blake3:0": bytes(5)})
    assert more == made
    assert "tables" not in repr(more)


def test_ladders_of_roles():
    """Rungs of a role, and those of both."""
    profile = parse_profile(WHOLE)
    assert profile.ladder(Role.KEY) == (RAW, LOSSLESS)
    assert profile.ladder(Role.VALUE) == (LOSSLESS,)
    assert parse_profile(changed("budget", None)).ladder(Role.KEY) == ()


@pytest.mark.parametrize(
    ("rule", "everything"),
    [
        (Rule(RAW), True),
        (Rule(RAW, role=Role.KEY), False),
        (Rule(RAW, layers=(Range(0, None),)), False),
        (Rule(RAW, heads=(Range(0, None),)), False),
        (Rule(RAW, tokens=(Range(0, None),)), False),
        (Rule(RAW, layers=()), False),
    ],
)
def test_what_matches_everything(rule, everything):
    """A rule without selectors, which ends a profile; parse adds one where it is missing."""
    assert rule.matches_everything == everything
    if not everything:
        with pytest.raises(ValueError):
            Profile("p", (rule,))
    assert len(parse_profile(changed("rules", [rule.to_json()] if rule.layers != () else []))
               .rules) == 2 - everything - (rule.layers == ())  # fmt: skip


def keys(codec: Any, **more: Any) -> dict[str, Any]:
    return {"role": "key", "codec": codec, **more}


TOKEN = {"name": "kivi", "axis": "token"}


@pytest.mark.parametrize(
    ("rules", "count"),
    [
        ([keys("raw"), {"codec": "int4"}], 0),
        ([keys("raw", layers=[[0, 1]]), {"codec": "int4"}], 1),
        ([keys("raw", heads=[[0, 1]]), {"codec": "int4"}], 1),
        ([keys("raw", tokens=[[0, 1]]), {"codec": "int4"}], 1),
        ([{"codec": "raw"}, {"codec": "int4"}], 0),
        ([keys("int4", layers=[[0, 1]]), {"codec": "int4"}], 1),
        ([keys({**TOKEN, "bits": 4}, layers=[[0, 1]]), {"codec": "int4"}], 2),
        ([{"role": "value", "codec": "int4"}, {"codec": "raw"}], 0),
        ([keys({"name": "turboquant_mse", "center": True})], 0),
        ([keys({"name": "turboquant_mse"})], 1),
        ([keys({"name": "kivi", "axis": "channel"})], 0),
    ],
    ids=range(11),
)
def test_cautions(rules, count):
    """Of codecs that some key may get, each told once; a rule for all of them hides the rest."""
    profile = parse_profile({"schema": "kvq_profile_v1", "name": "p", "rules": rules})
    assert len(cautions(profile)) == count
    assert all(cautions(profile))


@pytest.mark.parametrize(
    ("ranges", "held"),
    [([[1, 3]], [1, 2]), ([[0, 1], [3, None]], [0, 3]), ([[-2, -1]], [2]), ([[4, 9]], [])],
)
def test_layers_of_a_rule(ranges, held):
    """From the first of a range up to the last, which it does not hold."""
    rules = [{"layers": ranges, "codec": "int8"}, {"codec": "raw"}]
    profile = parse_profile({"schema": "kvq_profile_v1", "name": "p", "rules": rules})
    found = [runs(profile, Role.KEY, at, layers=4, heads=1, tokens=1) for at in range(4)]
    assert [at for at, (run,) in enumerate(found) if run.codec == INT8] == held


def test_no_layer_of_none():
    """A layer is one of those that there are, and counts begin at 0."""
    profile = Profile("p", (Rule(INT8),))
    for wrong in ({"heads": -1}, {"tokens": -1}, {"layers": 0}):
        sizes = {"layers": 1, "heads": 1, "tokens": 1} | wrong
        with pytest.raises(ValueError):
            runs(profile, Role.KEY, 0, **sizes)


OPEN, STEPPED = ({"name": "transform"}, {"name": "transform", "step": 2000})
TARGETED = {
    "a target of bits": ([OPEN], {"target": {"bits": 64}}, None),
    "a target of error": ([OPEN], {"target": {"relative_mse": 1e-9, "bits": None}}, None),
    "a step of one's own": ([STEPPED], {}, None),
    "a null target": ([STEPPED], {"target": None}, None),
    "both kinds": ([STEPPED, OPEN], {"target": {"bits": 2}}, None),
    "no step, no target": ([OPEN], {}, "/rules"),
    "a target for nobody": ([STEPPED], {"target": {"bits": 2}}, "/target"),
    "a target without the codec": (["int8"], {"target": {"bits": 2}}, "/target"),
    "two targets": ([OPEN], {"target": {"bits": 2, "relative_mse": 0.1}}, "/target"),
    "no target in it": ([OPEN], {"target": {"bits": None}}, "/target"),
    "zero": ([OPEN], {"target": {"bits": 0}}, "/target/bits"),
    "negative": ([OPEN], {"target": {"relative_mse": -0.1}}, "/target/relative_mse"),
    "too many": ([OPEN], {"target": {"bits": 64.1}}, "/target/bits"),
    "text": ([OPEN], {"target": {"bits": "2"}}, "/target/bits"),
    "another": ([OPEN], {"target": {"ratio": 8, "bits": 2}}, "/target/ratio"),
    "a number": ([OPEN], {"target": 2}, "/target"),
    "a fixed rate": ([STEPPED], {"fixed_rate": True}, "/fixed_rate"),
}


@pytest.mark.parametrize("name", TARGETED)
def test_targets(name):
    """A target is for steps that are left open, and one number; the normal form has it back."""
    codecs, members, pointer = TARGETED[name]
    value = {"schema": "kvq_profile_v1", "name": "p", "rules": [], **members}
    value["rules"] = [
        {"role": role, "codec": each} for role, each in zip(("key", "value"), codecs, strict=False)
    ]
    if pointer is not None:
        with pytest.raises(ProfileError) as refusal:
            parse_profile(value)
        assert (refusal.value.error_id, refusal.value.pointer) == ("E401", pointer)
        return
    profile = parse_profile(value)
    normal = profile.to_json()
    assert parse_profile(normal) == profile
    assert ("target" in normal) == (members.get("target") is not None)
    if "target" in normal:
        assert normal["target"] == {
            key: float(each) for key, each in members["target"].items() if each is not None
        }
        other = {**value, "target": {"bits": 3}}
        assert parse_profile(other).digest() != profile.digest()

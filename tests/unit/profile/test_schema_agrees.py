"""formats/schemas/profile.schema.json and the parser accept the same documents."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kvq_cli import jsontext
from kvq_cli.codecs.registry import CODECS, names, newest
from kvq_cli.errors import KvqError
from kvq_cli.profile import BOUNDS, TARGETS, parse_profile

PATH = Path(__file__).parents[3] / "formats" / "schemas" / "profile.schema.json"
SCHEMA = json.loads(PATH.read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)


JSON_TYPES = {bool: "boolean", int: "integer", str: "string"}


def parameter_schema(hint, field):
    """What the schema must say of a parameter, from its type: the rules of the registry."""
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    (choice,) = (each for each in choices if each is not NoneType)
    if get_origin(choice) is Literal:
        said = {"enum": [*get_args(choice), *([None] if NoneType in choices else [])]}
    else:
        word = JSON_TYPES[choice]
        said = {"type": [word, "null"] if NoneType in choices else word}
    if choice is int:
        said["minimum"] = field.metadata.get("minimum", 0)
        said["maximum"] = field.metadata.get("maximum", 2**63 - 1)
    if "pattern" in field.metadata:
        said["pattern"] = field.metadata["pattern"]
    return said if field.default is MISSING else said | {"default": field.default}


def codec_schema(codec):
    """What the schema must say of a codec, from the fields of its class."""
    hints = get_type_hints(codec)
    required = [each.name for each in fields(codec) if each.default is MISSING]
    parameters = {each.name: parameter_schema(hints[each.name], each) for each in fields(codec)}
    return {
        "type": "object",
        "required": ["name", *required],
        "additionalProperties": False,
        "properties": {"name": {"const": codec.name}} | parameters,
    }


def can_stand_alone(codec):
    """A codec whose parameters all have defaults may be written as its name."""
    return all(each.default is not MISSING for each in fields(codec))


def test_the_schema_knows_every_codec():
    """A codec or a parameter that the registry has and the schema lacks fails here."""
    listed, *objects = SCHEMA["$defs"]["codec"]["anyOf"]
    complete = [name for name in names() if can_stand_alone(CODECS[name, newest(name)])]
    assert listed == {"enum": complete}
    assert objects == [codec_schema(CODECS[name, newest(name)]) for name in names()]


# A grammar of documents: mostly right, with everything near the limits, and some junk.
junk = st.sampled_from(
    [None, True, False, 0, -1, 1, 2, 0.5, 1.5, "", "key", "raw", "zstd", [], {}, [[]], [[0, 1]], 65]
)
LARGE = 2**32 - 1
ends = st.sampled_from([-LARGE - 1, -LARGE, LARGE, LARGE + 1])
index = st.one_of(st.integers(0, 4), st.integers(0, 4), st.integers(-5, 5), ends)
forward = st.tuples(st.integers(-5, 2), st.sampled_from([None, 3, 9])).map(list)
one_range = st.one_of(forward, forward, st.tuples(index, st.one_of(st.none(), index)).map(list))
some_ranges = st.one_of(st.none(), st.lists(one_range, max_size=3))
fair = st.floats(0, 1)
rate = st.one_of(fair, fair, st.none(), st.integers(-2, 2), st.floats(allow_nan=False))
words = st.sampled_from(["keep_raw", "fail_closed", None, "raw"])
codec = st.one_of(
    st.sampled_from(names()),
    st.sampled_from([*names(), "int9"]),
    st.fixed_dictionaries(
        {"name": st.sampled_from([*names(), "int9"])},
        optional={
            "axis": st.sampled_from(["token", "channel", "row", 1]),
            "scale": st.sampled_from(["f32", "f16", "bf16", 2]),
            "bits": st.integers(0, 9),
            "group": st.sampled_from([32, 64, 128, 48, "32"]),
            "center": st.sampled_from([True, False, 1, None]),
            "zero_point": st.sampled_from([True, False, 0]),
            "step": st.sampled_from([1, 1 << 24, 0, None]),
        },
    ),
)
rule = st.fixed_dictionaries(
    {"codec": codec},
    optional={
        "role": st.sampled_from(["key", "value", None, "both"]),
        "layers": some_ranges,
        "heads": some_ranges,
        "tokens": some_ranges,
    },
)
documents = st.fixed_dictionaries(
    {
        "schema": st.just("kvq_profile_v1"),
        "name": st.one_of(st.just("p"), st.just("q-8"), st.from_regex(r"\A[ -~]{0,4}\n?\Z")),
        "rules": st.lists(rule, max_size=3),
    },
    optional={
        "description": st.one_of(st.none(), st.text(max_size=5), st.just("x" * 2001)),
        "page_tokens": st.sampled_from([None, 0, 1, 65536, 65537]),
        "page_layers": st.sampled_from([None, 0, 1, 2, 4096, 4097]),
        "protected": st.fixed_dictionaries(
            {},
            optional={
                "first_tokens": index,
                "last_tokens": index,
                "layers": some_ranges,
                "heads": some_ranges,
            },
        ),
        "fallback": words,
        "budget": st.fixed_dictionaries(
            {},
            optional=dict.fromkeys(BOUNDS, rate)
            | {
                "on_violation": words,
                "ladder": st.sampled_from([[], None, [{"codec": "int8"}], ["int8"], [{}]]),
            },
        ),
        "fixed_rate": st.sampled_from([True, False, None]),
        "target": st.fixed_dictionaries({}, optional=dict.fromkeys([*TARGETS, "more"], rate)),
        "calibration_digest": st.sampled_from([None, "blake3:" + "0" * 64, "blake3:" + "0" * 63]),
        "storage": st.fixed_dictionaries(
            {},
            optional={
                "entropy": st.sampled_from(["zstd", "none", "lz4", None]),
                "level": st.sampled_from([None, 0, 1, 22, 23]),
                "alignment": st.sampled_from([None, 32, 64, 96, 4096, 2097152, 4194304]),
            },
        ),
    },
)


def places(value):
    """Every container of a document with every key in it."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from places(inner)


def mutate(document, where, how, what):
    """Replace or remove one member anywhere, or add one that nobody knows."""
    spots = list(places(document))
    inside, key = spots[where % len(spots)]
    if how == "replace":
        inside[key] = what
    elif how == "remove":
        del inside[key]
    elif isinstance(inside, dict):
        inside["surplus"] = what
    else:
        inside.append(what)
    return document


mutated = st.builds(
    mutate,
    documents.map(lambda document: json.loads(json.dumps(document))),
    st.integers(0, 200),
    st.sampled_from(["replace", "remove", "add"]),
    junk,
)


def every_range(value):
    if isinstance(value, dict):
        for inner in value.values():
            yield from every_range(inner)
    elif isinstance(value, list):
        if len(value) == 2 and all(type(end) is int for end in value):
            yield value
        for inner in value:
            yield from every_range(inner)


def beyond_schema(document):
    """What a JSON Schema cannot say, and the whole list of it.

    1. A range of two ends of one sign has start below stop.
    2. An integer is written without a fraction: a schema takes 1.0 for an integer.
    3. The last of 4,096 rules matches everything: too large for this test, see test_parse.py.
    4. A transform has a step, or the profile a target; it has a basis and its size, or neither,
       and no fixed rate: see test_limits.py.
    """
    if document.get("target") is not None or "transform" in json.dumps(document):
        return True
    backwards = any(
        start >= stop and (start < 0) == (stop < 0) for start, stop in every_range(document)
    )
    return backwards or any(
        type(inside[key]) is float and inside[key].is_integer() and key not in (*BOUNDS, *TARGETS)
        for inside, key in places(document)
    )


def parser_accepts(document):
    try:
        parse_profile(document)
    except KvqError:
        return False
    return True


@settings(deadline=None, max_examples=200)
@given(st.one_of(documents, mutated))
def test_parser_and_schema_accept_the_same(document):
    """They differ only where the stated exceptions hold, and there only the parser refuses."""
    if beyond_schema(document):
        assert not parser_accepts(document) or VALIDATOR.is_valid(document)
    else:
        assert parser_accepts(document) == VALIDATOR.is_valid(document)


@settings(deadline=None, max_examples=200)
@given(documents)
def test_the_normal_form_is_stable(document):
    """Parsing a normal form gives the same profile, text and digest; prose changes no digest."""
    if not parser_accepts(document):
        return
    profile = parse_profile(document)
    normal = jsontext.loads(jsontext.canonical(profile.to_json()).encode(), limit=1 << 20)
    assert VALIDATOR.is_valid(normal)
    again = parse_profile(normal)
    assert again == profile
    assert jsontext.canonical(again.to_json()) == jsontext.canonical(normal)
    bare = {key: each for key, each in normal.items() if key not in ("description", "storage")}
    assert again.digest() == profile.digest() == parse_profile(bare).digest()


@pytest.mark.parametrize(
    "member", ["name", "page_tokens", "page_layers", "rules", "protected", "fallback"]
)
def test_the_digest_covers_what_changes_bytes(member):
    """Each member of the content changes the digest."""
    base = {"schema": "kvq_profile_v1", "name": "p", "rules": [{"codec": "raw"}]}
    other = {
        "name": "q",
        "page_tokens": 255,
        "page_layers": 2,
        "rules": [],
        "protected": {"first_tokens": 1},
        "fallback": "fail_closed",
    }
    assert parse_profile(base).digest() != parse_profile(base | {member: other[member]}).digest()

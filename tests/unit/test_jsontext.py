"""jsontext: what is refused that json.loads takes, where, and how values are written."""

import json

import pytest

from kvq_cli import jsontext
from kvq_cli.errors import ProfileError

ROOM = 1 << 16
DEEP = 32


def refused(data: bytes, limit: int = ROOM) -> ProfileError:
    with pytest.raises(ProfileError) as refusal:
        jsontext.loads(data, limit=limit)
    return refusal.value


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return (opening * depth + closing * depth).encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ('{"a": [1, 2.5, "x", null, true, false]}', {"a": [1, 2.5, "x", None, True, False]}),
        ('{"a": 1, "b": {"a": 1}}', {"a": 1, "b": {"a": 1}}),
        ('"\\u00e9\\ud83d\\ude00"', "\u00e9\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ("1e308", 1e308),
        ("1e-400", 0.0),
        ("9" * 40, int("9" * 40)),
        ("-" + "9" * 39, -int("9" * 39)),
    ],
)
def test_what_is_read(text, value):
    """Strict JSON, to the limits."""
    assert jsontext.loads(text.encode(), limit=ROOM) == value


def test_minus_zero_keeps_its_sign():
    """-0 is a float, whose sign is there; 0 is an integer."""
    assert str(jsontext.loads(b"-0", limit=9)) == "-0.0"
    assert str(jsontext.loads(b"[0, -1]", limit=9)) == "[0, -1]"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[1,]",
        b"{} {}",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"[1e309]",
        b"[-1e309]",
        b"9" * 41,
        b"-" + b"9" * 40,
        b'{"a": 1, "b": 2, "a": 1}',
        b'{"a": null, "a": null}',
        b'[{"x": {"b": 1, "b": 2}}]',
        b"\xef\xbb\xbf{}",
        b'"\xff"',
        b'"\\ud800"',
        b'{"\\udfff": 1}',
        b"'a'",
        b"\x00",
    ],
)
def test_what_is_refused(data):
    """What json.loads would take, and what it would not: E401, at the root."""
    error = refused(data)
    assert (error.error_id, error.pointer) == ("E401", "")


def test_no_more_bytes_than_allowed():
    """The limit itself is allowed; beyond it nothing is parsed."""
    assert jsontext.loads(b"[1]", limit=3) == [1]
    assert refused(b"[1]", limit=2).error_id == "E404"
    assert refused(b"\xff\xff\xff", limit=2).error_id == "E404"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth(opening):
    """Thirty-two brackets in each other are read, thirty-three are not."""
    closing = "]" if opening == "[" else "}"
    inner = "0" if opening != "[" else ""
    for depth, good in ((DEEP, True), (DEEP + 1, False), (5000, False)):
        data = (opening * depth + inner + closing * depth).encode()
        if good:
            jsontext.loads(data, limit=ROOM)
        else:
            assert refused(data).error_id == "E401"


@pytest.mark.parametrize(
    "data",
    [
        b"[" + b"[]," * 99 + b"[]]",
        b'["' + b"[" * 99 + b'"]',
        b'["\\"' + b"[{" * 99 + b'"]',
        b'["\\\\", "' + b"{" * 99 + b'\\\\"]',
        b'["a\\\\\\"' + b"]" * 50 + b"[" * 99 + b'"]',
        b"[[], {}, " + nested(DEEP - 1) + b"]",
    ],
)
def test_brackets_that_are_not_deep(data):
    """Brackets beside each other, and in strings, are no depth."""
    assert jsontext.loads(data, limit=ROOM) == json.loads(data)


def test_brackets_without_end():
    """As many as exhaust the parser are refused like any text that is no JSON."""
    for data in (b"[" * 100_000, b'{"a":' * 100_000):
        assert refused(data, limit=1 << 20).error_id == "E401"


def test_brackets_behind_others_count():
    """What is closed hides nothing of what stands behind it, nor does a string with brackets."""
    for beside in (b"[], ", b"{}, ", b"[[]], "):
        assert refused(b"[" + beside * 5 + nested(DEEP) + b"]").error_id == "E401"
    data = b'["]]]]]]]]\\"]]]]]]", ' + nested(DEEP) + b"]"
    assert refused(data).error_id == "E401"


@pytest.mark.parametrize(
    ("parent", "key", "pointer"),
    [
        ("", "a", "/a"),
        ("/a", 0, "/a/0"),
        ("", "", "/"),
        ("/x", "a/b", "/x/a~1b"),
        ("", "m~n", "/m~0n"),
        ("", "~1", "/~01"),
        ("", "/~", "/~1~0"),
    ],
)
def test_pointer(parent, key, pointer):
    """As RFC 6901 has it."""
    assert jsontext.pointer(parent, key) == pointer


def test_canonical():
    """Keys sorted, no space, text as it is; a number that is none is not written."""
    value = {"b": [1, {"z": "µ\n", "a": None}], "a": 0.5}
    assert jsontext.canonical(value) == '{"a":0.5,"b":[1,{"a":null,"z":"µ\\n"}]}'
    with pytest.raises(ValueError):
        jsontext.canonical({"a": float("nan")})

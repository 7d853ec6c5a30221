"""Fields: every reader takes its own type and names what is wrong by a pointer."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from kvq_cli.contract.fields import U8, U64, Fields, shown
from kvq_cli.errors import ProfileError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


def refused(read: Any, *args: Any) -> ProfileError:
    with pytest.raises(ProfileError) as refusal:
        read(*args)
    return refusal.value


@pytest.mark.parametrize("value", [None, [], "x", 1, 1.5, True])
def test_only_objects_have_fields(value: Any) -> None:
    """Whatever is no object is refused at its own pointer."""
    error = refused(Fields, value, "/a")
    assert (error.error_id, error.pointer) == ("E401", "/a")


@pytest.mark.parametrize("value", [True, False, 2.0, -0.0, "2", None, [2], -1, 2**64])
def test_integers_are_integers(value: Any) -> None:
    """A boolean, a float of whole value or a number out of range is no integer."""
    error = refused(Fields({"a": value}).integer, "a", 0, U64)
    assert (error.error_id, error.pointer) == ("E401", "/a")


def test_bytes_are_integers_to_255() -> None:
    """The largest byte is read, what is larger is not."""
    assert Fields({"a": [0, 255]}).integers("a", 0, U8) == (0, 255)
    assert refused(Fields({"a": [256]}).integers, "a", 0, U8).pointer == "/a/0"


def test_integers_are_exact() -> None:
    """Integers beyond 2^53 keep every digit."""
    assert Fields({"a": U64}).integer("a", 0, U64) == U64


@pytest.mark.parametrize(
    "value", [True, "1.0", None, float("nan"), float("inf"), 10**400, {"a": 1}]
)
def test_numbers_are_finite(value: Any) -> None:
    """A number is finite and no boolean."""
    assert refused(Fields({"a": value}).number, "a").pointer == "/a"


def test_numbers_may_be_written_as_integers() -> None:
    """2 reads as 2.0, and -0.0 keeps its sign."""
    assert Fields({"a": 2}).number("a").hex() == "0x1.0000000000000p+1"
    assert Fields({"a": -0.0}).number("a").hex() == "-0x0.0p+0"


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_booleans_are_booleans(value: Any) -> None:
    """0 and 1 are no booleans."""
    assert refused(Fields({"a": value}).boolean, "a").pointer == "/a"


@pytest.mark.parametrize("value", [1, None, "\ud800"])
def test_texts_can_be_written(value: Any) -> None:
    """A text is a string that UTF-8 can hold."""
    assert refused(Fields({"a": value}).text, "a").pointer == "/a"


def test_choice_is_exact() -> None:
    """An enumeration is read by its exact text, and a near miss is suggested."""
    assert Fields({"a": "red"}).choice("a", Colour) is Colour.RED
    error = refused(Fields({"a": "Red"}).choice, "a", Colour)
    assert error.pointer == "/a"
    assert '"red"' in str(error)


def test_lists_point_at_their_elements() -> None:
    """An element is refused at its own index."""
    fields = Fields({"n": [1, True], "t": ["x", 2], "o": [{}, 3], "s": "x"}, "/r/0")
    assert refused(fields.integers, "n").pointer == "/r/0/n/1"
    assert refused(fields.texts, "t").pointer == "/r/0/t/1"
    assert refused(fields.texts, "t").error_id == "E401"
    assert refused(fields.objects, "o").pointer == "/r/0/o/1"
    assert refused(fields.array, "s").pointer == "/r/0/s"
    assert Fields({"n": [2, 1]}).integers("n") == (2, 1)
    assert Fields({"t": ["x"]}).texts("t") == ("x",)


def test_optional_members() -> None:
    """A missing or null member is None, another is read strictly."""
    fields = Fields({"a": None, "b": 2})
    assert fields.optional(fields.number, "a") is None
    assert fields.optional(fields.number, "c") is None
    assert fields.optional(fields.integer, "b", 0, 3) == 2
    assert refused(fields.optional, fields.integer, "b", 0, 1).pointer == "/b"
    fields.done()


def test_nullable_members() -> None:
    """A null member is None, another is read strictly, and a missing one is refused."""
    fields = Fields({"a": None, "b": 2}, "/r")
    assert fields.nullable(fields.number, "a") is None
    assert fields.nullable(fields.integer, "b", 0, 3) == 2
    assert refused(fields.nullable, fields.integer, "b", 0, 1).pointer == "/r/b"
    assert refused(fields.nullable, fields.number, "c").pointer == "/r"
    fields.done()


def test_nested_pointers_are_escaped() -> None:
    """Pointers follow RFC 6901 through nested objects."""
    inner = Fields({"a/b": {"c~d": 1}}).object("a/b")
    assert inner.integer("c~d") == 1
    assert inner.at("c~d") == "/a~1b/c~0d"


def test_missing_member_points_at_the_object() -> None:
    """A missing key is refused at the object that lacks it."""
    assert refused(Fields({}, "/x").text, "a").pointer == "/x"


def test_done_refuses_the_unknown() -> None:
    """A key nobody asked for is refused, with the nearest known key."""
    fields = Fields({"tokens": 1, "token": 2})
    assert fields.value("tokens") == 1
    error = refused(fields.done)
    assert error.pointer == "/token"
    assert '"tokens"' in str(error)


def test_exact_texts() -> None:
    """A marker has one allowed text."""
    assert Fields({"schema": "v1"}).exactly("schema", "v1") == "v1"
    assert refused(Fields({"schema": "v2"}).exactly, "schema", "v1").pointer == "/schema"


def test_long_values_are_cut() -> None:
    """A message does not repeat a long value whole, nor a control character."""
    message = str(refused(Fields({"a": "\n" * 10_000}).integer, "a"))
    assert len(message) < 200
    assert message.isprintable()
    assert shown("x" * 58) == '"' + "x" * 58 + '"'
    assert shown("x" * 59) == '"' + "x" * 59 + "…"

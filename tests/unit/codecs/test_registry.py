"""registry: names and parameters from JSON, strictly, and back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest

from kvq_cli.codecs import registry
from kvq_cli.codecs.int8 import Int8
from kvq_cli.codecs.registry import CODECS, codec_from_json, codec_to_json, newest
from kvq_cli.errors import CodecError, ProfileError


@dataclass(frozen=True, slots=True)
class Many:
    """A codec's parameters of every kind."""

    name: ClassVar[str] = "many"
    revision: ClassVar[int] = 3
    bits: Literal[2, 3] = 2
    center: bool = True
    seed: int = field(default=0, metadata={"maximum": 9})
    book: str | None = None

    def __post_init__(self):
        if self.bits == 3 and not self.center:
            raise ValueError("3 bits need center")


@pytest.fixture
def many(monkeypatch):
    monkeypatch.setattr(registry, "CODECS", {**CODECS, ("many", 3): Many})


def test_defaults_are_taken_and_written():
    """Members left out take defaults; writing states all of them, sorted."""
    codec = codec_from_json("int8", {"scale": "f16"}, "/rules/0/params")
    assert codec == Int8(axis="token", scale="f16")
    assert codec_to_json(codec) == {
        "name": "int8",
        "revision": 1,
        "params": {"axis": "token", "center": False, "scale": "f16"},
    }
    assert list(codec_to_json(codec)["params"]) == ["axis", "center", "scale"]


@pytest.mark.parametrize(
    ("params", "pointer"),
    [
        ({"axes": "token"}, "/p/axes"),
        ({"axis": "row"}, "/p/axis"),
        ({"axis": None}, "/p/axis"),
        ({"axis": ["token"]}, "/p/axis"),
        ({"a/b": 1}, "/p/a~1b"),
    ],
)
def test_wrong_params_are_refused_where_they_stand(params, pointer):
    """An unknown member or value is a ProfileError with its JSON pointer."""
    with pytest.raises(ProfileError) as refusal:
        codec_from_json("int8", params, "/p")
    assert refusal.value.error_id == "E401"
    assert refusal.value.pointer == pointer


@pytest.mark.parametrize(
    "params",
    [
        {"bits": 4},
        {"bits": 2.0},
        {"bits": True},
        {"center": 1},
        {"seed": -1},
        {"seed": 10},
        {"seed": False},
        {"book": 1},
        {"bits": 3, "center": False},
    ],
)
def test_types_are_those_of_json(many, params):
    """True is no 1, 2.0 no 2; ranges and rules across parameters hold."""
    with pytest.raises(ProfileError) as refusal:
        codec_from_json("many", params, "/p")
    assert refusal.value.error_id == "E401"


def test_right_values_of_every_kind_are_taken(many):
    """Literals, booleans, numbers in range, strings and null."""
    params = {"bits": 3, "book": "x", "center": True, "seed": 9}
    assert codec_to_json(codec_from_json("many", params, ""))["params"] == params
    assert codec_from_json("many", {"book": None}, "").book is None


def test_unknown_names_are_refused_with_what_there_is():
    """E503 names the nearest codec and all of them."""
    with pytest.raises(CodecError) as refusal:
        newest("int-8")
    assert refusal.value.error_id == "E503"
    assert '"int8"' in str(refusal.value)
    assert all(name in str(refusal.value) for name, _ in CODECS)


def test_unknown_revisions_are_refused():
    """A newer revision is unsupported, not guessed at."""
    with pytest.raises(CodecError) as refusal:
        codec_from_json("int8", {}, "", revision=99)
    assert refusal.value.error_id == "E503"
    assert newest("int8") == codec_from_json("int8", {}, "").revision


def test_the_table_is_closed():
    """Nobody registers a codec at run time."""
    with pytest.raises(TypeError):
        CODECS["int8", 2] = Int8

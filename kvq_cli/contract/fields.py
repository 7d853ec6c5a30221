"""fields: strict readers of the members of one JSON object.

Spec: formats/contract.md, section "Reading".

Every reader names what is wrong by a JSON pointer. A boolean is no integer, 2.0 is no
integer, a key that nobody asked for is refused:

    fields = Fields(value, pointer)
    tokens = fields.integer("tokens", 1, U32)
    budget = fields.optional(fields.number, "max_logit_mse")
    fields.done()
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Concatenate, Final, NoReturn, ParamSpec, TypeVar

from kvq_cli import jsontext
from kvq_cli.errors import ProfileError

U8: Final = 2**8 - 1
U32: Final = 2**32 - 1
U64: Final = 2**64 - 1

_SHOWN: Final = 60  # characters of a wrong value that a message repeats

_Arguments = ParamSpec("_Arguments")
_Value = TypeVar("_Value")
_Word = TypeVar("_Word", bound=StrEnum)


class Fields:
    """One JSON object, read member by member; `done` refuses what was not asked for."""

    def __init__(self, value: Any, pointer: str = "") -> None:
        if not isinstance(value, dict):
            raise ProfileError("E401", f"{kind(value)}, an object is expected", pointer)
        self.pointer = pointer
        self._members: dict[str, Any] = value
        self._asked: dict[str, None] = {}

    def at(self, key: str | int) -> str:
        """The JSON pointer of a member."""
        return jsontext.pointer(self.pointer, key)

    def has(self, key: str) -> bool:
        """Whether the member is there and is not null."""
        self._asked[key] = None
        return self._members.get(key) is not None

    def optional(
        self,
        read: Callable[Concatenate[str, _Arguments], _Value],
        key: str,
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Value | None:
        """What `read` reads, or None where the member is missing or null."""
        return read(key, *args, **kwargs) if self.has(key) else None

    def nullable(
        self,
        read: Callable[Concatenate[str, _Arguments], _Value],
        key: str,
        /,
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> _Value | None:
        """What `read` reads, or None where the member is null; it must be there."""
        return None if self._member(key) is None else read(key, *args, **kwargs)

    def text(self, key: str) -> str:
        value = self._member(key)
        if not isinstance(value, str):
            self._wrong(key, value, "a string")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.refuse(key, "a string holds half a surrogate pair")
        return value

    def integer(self, key: str, low: int = 0, high: int = U32) -> int:
        return _integer(self._member(key), self.at(key), low, high)

    def number(self, key: str) -> float:
        """A finite float64; an integer literal is a number too."""
        value = self._member(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self._wrong(key, value, "a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.refuse(key, f"{shown(value)} is not a finite float64")
        return number

    def boolean(self, key: str) -> bool:
        value = self._member(key)
        if not isinstance(value, bool):
            self._wrong(key, value, "true or false")
        return value

    def choice(self, key: str, words: type[_Word]) -> _Word:
        """A member of the enumeration, by its exact text."""
        value = self.text(key)
        try:
            return words(value)
        except ValueError:
            allowed = ", ".join(words)
            self.refuse(key, f"{shown(value)} is not one of {allowed}{_hint(value, list(words))}")

    def exactly(self, key: str, expected: str) -> str:
        """A text with one allowed value, such as a schema marker."""
        value = self.text(key)
        if value != expected:
            self.refuse(key, f"{shown(value)}, expected {shown(expected)}")
        return value

    def object(self, key: str) -> Fields:
        return Fields(self._member(key), self.at(key))

    def objects(self, key: str) -> list[Fields]:
        """An array of objects."""
        return [Fields(value, f"{self.at(key)}/{at}") for at, value in enumerate(self.array(key))]

    def integers(self, key: str, low: int = 0, high: int = U32) -> tuple[int, ...]:
        """An array of integers, in the order they are written."""
        return tuple(
            _integer(value, f"{self.at(key)}/{at}", low, high)
            for at, value in enumerate(self.array(key))
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """An array of strings."""
        values = self.array(key)
        for at, value in enumerate(values):
            if not isinstance(value, str):
                pointer = f"{self.at(key)}/{at}"
                raise ProfileError("E401", f"{kind(value)}, a string is expected", pointer)
        return tuple(values)

    def array(self, key: str) -> list[Any]:
        """An array, its elements unread."""
        value = self._member(key)
        if not isinstance(value, list):
            self._wrong(key, value, "an array")
        return value

    def value(self, key: str) -> Any:
        """A member of any JSON type, unread: for members that may be of several types."""
        return self._member(key)

    def member(self, key: str) -> tuple[Any, str]:
        """A member, unread, and its pointer: what a from_json takes."""
        return self._member(key), self.at(key)

    def done(self) -> None:
        """Refuse the first key that no reader asked for."""
        for key in self._members:
            if key not in self._asked:
                known = list(self._asked)
                hint = _hint(str(key), known) or f"; known keys: {', '.join(known)}"
                raise ProfileError("E401", f"unknown key{hint}", self.at(key))

    def refuse(self, key: str, message: str, error_id: str = "E401") -> NoReturn:
        """Refuse a member for a reason of the caller's own."""
        raise ProfileError(error_id, message, self.at(key))

    def _member(self, key: str) -> Any:
        self._asked[key] = None
        if key not in self._members:
            raise ProfileError("E401", f"missing key {json.dumps(key)}", self.pointer)
        return self._members[key]

    def _wrong(self, key: str, value: Any, expected: str) -> NoReturn:
        self.refuse(key, f"{kind(value)}, {expected} is expected")


def kind(value: Any) -> str:
    """What a JSON value is, and which one, for a message."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f"the string {shown(value)}"
    return f"the number {shown(value)}" if type(value) in (int, float) else shown(value)


def shown(value: Any) -> str:
    """A JSON value as one short printable line."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _integer(value: Any, pointer: str, low: int, high: int) -> int:
    if type(value) is not int:
        raise ProfileError("E401", f"{kind(value)}, an integer is expected", pointer)
    if not low <= value <= high:
        raise ProfileError("E401", f"{shown(value)} is not in {low}..{high}", pointer)
    return value


def _hint(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {shown(near[0])}?" if near else ""

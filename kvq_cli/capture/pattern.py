r"""pattern: the regular expressions of layout maps, which no name makes slow.

Spec: formats/layout_map.md, section "Patterns".

    pattern := branch ("|" branch)*          all of a name is matched
    branch  := (one ("*" | "+" | "?")? | group "?"?)*
    one     := character | "." | "\d" | "\w" | "\" punctuation | "[" set "]"
    group   := ("(" | "(?:" | "(?P<word>") pattern ")"

`*` and `+` of `\d` keep all digits that they took. A name can then be tried in so many ways:

    of a group the sum over its branches, one more with "?"; of a branch the product over its
    parts: MAX_NAME for "*" and "+" of anything but "\d", 2 for "?", 1 for the rest

A pattern with more than MAX_WAYS is refused, and so nothing is exponential.
"""

from __future__ import annotations

import re
from typing import Final

MAX_PATTERN: Final = 256
MAX_NAME: Final = 256  # longer names are matched by no pattern
MAX_WAYS: Final = 1 << 18  # two repeats of anything, and 4 choices
DIGIT: Final = r"\d"
TOKEN: Final = re.compile(
    r"(?P<one>[^\\.\[\](){}*+?|^$]|\.|\\[dw]|\\[^A-Za-z0-9]"
    r"|\[\^?(?:[A-Za-z0-9_.:/ ]|\\[dw]|\\[^A-Za-z0-9]|-(?!-))+\])"
    r"|(?P<repeat>[*+?])|(?P<open>\((?:\?:|\?P<[a-z]+>)?(?!\?))|(?P<close>\))|(?P<or>\|)",
    re.DOTALL,
)


def compiled(text: str) -> re.Pattern[str]:
    """The pattern; ValueError says what is wrong with it."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"{len(text)} characters, at most {MAX_PATTERN} are allowed")
    reader = _read(text, MAX_NAME)
    if reader.ways > MAX_WAYS:
        repeats = "two of * and + behind anything but \\d are allowed, and a few choices"
        raise ValueError(f"a name could be tried in {reader.ways} ways: {repeats}")
    try:
        return re.compile("".join(reader.written), re.ASCII | re.DOTALL)
    except re.error as error:
        raise ValueError(str(error)) from error


def ways(text: str, length: int) -> int:
    """In how many ways names of up to `length` characters can be tried."""
    return _read(text, min(length, MAX_NAME)).ways


def _read(text: str, length: int) -> _Reader:
    reader = _Reader(length)
    at = 0
    while at < len(text):
        token = TOKEN.match(text, at)
        if token is None:
            raise ValueError(_unknown(text, at))
        reader.take(token)
        at = token.end()
    if len(reader.open) > 1:
        raise ValueError("a ( is not closed")
    return reader


def fitted(pattern: re.Pattern[str], name: str) -> re.Match[str] | None:
    """The match of all of a name."""
    return pattern.fullmatch(name) if len(name) <= MAX_NAME else None


def quoted(text: str) -> str:
    """The pattern that matches this text alone."""
    return re.sub(r"[\\.\[\](){}*+?|^$]", r"\\\g<0>", text)


class _Reader:
    """Counts ways while it copies tokens: of each open group, those of its branches."""

    def __init__(self, length: int) -> None:
        self._length = length  # of names
        self.open: list[list[int]] = [[1]]
        self.written: list[str] = []
        self._last = ""  # what a repeat would stand behind
        self._ways = 1  # those of the group that was closed last

    @property
    def ways(self) -> int:
        """Those of the whole pattern, once it is read."""
        return sum(self.open[0])

    def take(self, token: re.Match[str]) -> None:
        kind, text = str(token.lastgroup), token.group()
        if kind == "open":
            self.open.append([1])
        elif kind == "or":
            self.open[-1].append(1)
        elif kind == "close":
            self._close()
        elif kind == "repeat":
            text = self._repeat(text)
        self.written.append(text)
        self._last = text if kind == "one" else kind

    def _close(self) -> None:
        if len(self.open) == 1:
            raise ValueError("a ) closes nothing")
        self._ways = sum(self.open.pop())
        self.open[-1][-1] *= self._ways

    def _repeat(self, text: str) -> str:
        if self._last in ("", "open", "or", "repeat"):
            raise ValueError(f"{text} stands behind nothing that it can repeat")
        branch = self.open[-1]
        if self._last == "close":
            if text != "?":
                raise ValueError(f"{text} stands behind a group, which only ? may")
            branch[-1] = branch[-1] // self._ways * (self._ways + 1)
        elif text == "?":
            branch[-1] *= 2
        elif self._last == DIGIT:
            return f"{text}+"  # possessive
        else:
            branch[-1] *= self._length
        return text


def _unknown(text: str, at: int) -> str:
    found = text[at : at + 2] if text[at] in "\\(" else text[at]
    hints = {"^": "; all of a name is matched anyway", "$": "; all of a name is matched anyway"}
    return f"{found} at {at} is not understood here{hints.get(text[at], '')}"

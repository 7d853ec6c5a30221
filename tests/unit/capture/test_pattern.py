"""Patterns of layout maps: they match as Python's do, and no name makes one slow."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvq_cli.capture.pattern import MAX_NAME, compiled, fitted, quoted

# The slowest that the grammar lets through, and names that they nearly match.
SLOW = [
    ".*.*x",
    ".*.*(?:a|a)(?:a|a)x",
    "a*a*(?:aa|a|a|a)b",
    r"\w*\w*a?a?b",
    ".*a.*a(?:a|a)(?:a|a)x",
    "a?" * 17 + "x",
    "(?:a|a)?" * 10 + "x",
    "(?:a*|a*)(?:a*|a*)b",
    "(?:a|aa|aaa|aaaa|aaaaa|aaaaaa|aaaaaaa|aaaaaaaa)" * 5 + "x",
    r"\d+" * 80 + "x",
    r"(?P<layer>\d+)\.?" * 1 + r"\d+\d*\d+" * 20 + "x",
]


@pytest.mark.parametrize("text", SLOW, ids=range(len(SLOW)))
@pytest.mark.parametrize("letter", ["a", "1"])
def test_no_name_is_slow(text, letter):
    """The longest name that any pattern looks at takes a fraction of a second."""
    pattern = compiled(text)
    begin = time.process_time()
    assert fitted(pattern, letter * MAX_NAME) is None
    assert fitted(pattern, letter * 100_000) is None
    assert time.process_time() - begin < 0.25


ONE = st.sampled_from(["a", "b", ".", r"\w", r"\.", "[ab]", "[^a]", "1"])
PATTERN = st.recursive(
    st.lists(st.tuples(ONE, st.sampled_from(["", "", "?", "*", "+"])), max_size=3).map(
        lambda parts: "".join(map("".join, parts))
    ),
    lambda inner: st.tuples(
        st.sampled_from(["(", "(?:"]),
        st.lists(inner, min_size=1, max_size=3),
        st.sampled_from("?."),
    ).map(lambda each: f"{each[0]}{'|'.join(each[1])}){each[2]}"),
    max_leaves=4,
)


@given(PATTERN, st.text("ab.1x\n", max_size=6))
def test_patterns_match_as_in_python(text, name):
    """What is not refused matches what Python's own expression matches."""
    try:
        pattern = compiled(text)
    except ValueError as error:
        assert "ways" in str(error)  # noqa: PT017
        return
    expected = re.compile(text, re.DOTALL | re.ASCII).fullmatch(name)
    assert (fitted(pattern, name) is None) == (expected is None)


@given(st.text(max_size=300))
def test_any_text_is_a_pattern_or_refused(text):
    """Nothing but ValueError."""
    with contextlib.suppress(ValueError):
        compiled(text)


@given(st.text(max_size=100))
def test_a_quoted_text_matches_itself_alone(text):
    """Quoting is what --guess writes names with."""
    pattern = compiled(quoted(text)[:256]) if len(quoted(text)) <= 256 else compiled("")
    if len(quoted(text)) <= 256:
        assert fitted(pattern, text) is not None
        assert fitted(pattern, text + "x") is None

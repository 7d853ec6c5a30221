"""select: numbers and half-open ranges, resolved against a length."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import UsageError
from kvq_cli.steps.select import Selection, inside, parse_choice, resolve
from kvq_cli.words import Role

ENDS = st.none() | st.integers(-30, 30)
ITEMS = st.integers(-20, 19) | st.builds(slice, ENDS, ENDS)


def written(item):
    if isinstance(item, int):
        return str(item)
    return f"{'' if item.start is None else item.start}:{'' if item.stop is None else item.stop}"


@settings(deadline=None, max_examples=200)
@given(st.lists(ITEMS, min_size=1, max_size=5))
def test_choices_are_python_s(items):
    """What is chosen among 20 is what Python's own indexing picks, ascending, once each."""
    parsed = parse_choice(",".join(map(written, items)), "token")
    numbers = range(20)
    wanted = {
        each
        for item in items
        for each in (numbers[item] if isinstance(item, slice) else [numbers[item]])
    }
    if not wanted:
        with pytest.raises(UsageError) as caught:
            resolve(parsed, 20, "token")
        assert caught.value.error_id == "E101"
        return
    assert list(resolve(parsed, 20, "token")) == sorted(wanted)


@settings(deadline=None, max_examples=200)
@given(st.text("0123456789:,- x", max_size=8))
def test_any_text_is_a_choice_or_a_usage_error(text):
    """No text raises anything else, and what parses has a meaning."""
    try:
        parsed = parse_choice(text, "head")
    except UsageError:
        return
    assert parsed
    with contextlib.suppress(UsageError):
        assert set(resolve(parsed, 7, "head")) <= set(range(7))


@pytest.mark.parametrize("chosen", [(7,), (-8,), (slice(7, 9),), (slice(3, 3),), (0, 99)])
def test_what_is_not_there(chosen):
    """A number outside, or nothing at all, is refused."""
    with pytest.raises(UsageError):
        resolve(chosen, 7, "layer")


def test_none_is_all():
    """Without a choice everything is taken, and nothing is cut."""
    assert resolve(None, 4, "token") == range(4)
    assert parse_choice(None, "token") is None
    assert not Selection().cuts
    assert Selection(roles=(Role.KEY,)).cuts
    assert Selection(chosen_tokens=(slice(None),)).cuts


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 40), min_size=1), st.integers(0, 40), st.integers(1, 20))
def test_inside(numbers, start, length):
    """The places of the chosen numbers that lie in a range."""
    chosen = tuple(sorted(numbers))
    first, last = inside(chosen, start, start + length)
    assert chosen[first:last] == tuple(n for n in chosen if start <= n < start + length)

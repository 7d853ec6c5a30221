"""runs, pages and codec_table: a profile applied to a layer."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.profile import (
    Profile,
    Protected,
    Range,
    Rule,
    Run,
    codec_table,
    page_lengths,
    pages,
    parse_profile,
    runs,
)
from kvq_cli.words import Reason, Role

CODECS = [codec_from_json(name, {}, "") for name in ("raw", "lossless", "int8")]
RAW, LOSSLESS, INT8 = CODECS

ranges = st.builds(Range, st.integers(-9, 9), st.one_of(st.none(), st.integers(-9, 9).filter(bool)))
selectors = st.one_of(st.none(), st.lists(ranges, min_size=1, max_size=3).map(tuple))
rules = st.builds(
    Rule,
    codec=st.sampled_from(CODECS),
    role=st.sampled_from([None, *Role]),
    layers=selectors,
    heads=selectors,
    tokens=selectors,
)
profiles = st.builds(
    Profile,
    name=st.just("p"),
    rules=st.lists(rules, max_size=5).map(lambda some: (*some, Rule(LOSSLESS))),
    protected=st.builds(
        Protected,
        first_tokens=st.integers(0, 8),
        last_tokens=st.integers(0, 8),
        layers=st.lists(ranges, max_size=1).map(tuple),
        heads=st.lists(ranges, max_size=2).map(tuple),
    ),
)


def inside(chosen, at, length):
    return chosen is None or any(at in range(length)[each.start : each.stop] for each in chosen)


def treatment(profile, role, layer, layers, head, heads, token, tokens):
    """One (head, token), word for word as formats/profile.md says it."""
    protected = profile.protected
    if (
        inside(protected.layers, layer, layers)
        or inside(protected.heads, head, heads)
        or token < protected.first_tokens
        or token >= tokens - protected.last_tokens
    ):
        return RAW, Reason.PROTECTED
    for rule in profile.rules:
        if (
            rule.role in (None, role)
            and inside(rule.layers, layer, layers)
            and inside(rule.heads, head, heads)
            and inside(rule.tokens, token, tokens)
        ):
            return rule.codec, Reason.NONE
    raise AssertionError("the last rule matches everything")


def painted(found, heads, tokens):
    """(head, token) to treatment; every one exactly once."""
    grid = {}
    for run in found:
        for head in run.heads:
            for token in range(run.start, run.stop):
                assert (head, token) not in grid
                grid[head, token] = (run.codec, run.reason)
    assert len(grid) == heads * tokens
    return grid


layers_of = st.integers(1, 6).flatmap(lambda n: st.tuples(st.integers(0, n - 1), st.just(n)))


@settings(deadline=None, max_examples=200)
@given(profiles, st.sampled_from(Role), layers_of, st.integers(1, 6), st.integers(1, 20))
def test_runs_equal_the_rules_word_for_word(profile, role, layer_of, heads, tokens):
    """Runs cover every (head, token) once, with the treatment that the rules give it."""
    layer, layers = layer_of
    found = runs(profile, role, layer, layers=layers, heads=heads, tokens=tokens)
    grid = painted(found, heads, tokens)
    for (head, token), got in grid.items():
        assert got == treatment(profile, role, layer, layers, head, heads, token, tokens)


@settings(deadline=None, max_examples=200)
@given(profiles, st.sampled_from(Role), st.integers(1, 6), st.integers(1, 20))
def test_runs_are_maximal_and_in_order(profile, role, heads, tokens):
    """Heads treated alike share runs, neighbouring runs differ, the order is start, heads."""
    found = runs(profile, role, 0, layers=1, heads=heads, tokens=tokens)
    assert list(found) == sorted(found, key=lambda run: (run.start, run.heads))
    assert all(run.heads == tuple(sorted(set(run.heads))) for run in found)
    by_heads = {}
    for run in found:
        by_heads.setdefault(run.heads, []).append(run)
    for same in by_heads.values():
        for one, other in itertools.pairwise(same):
            assert one.stop == other.start
            assert (one.codec, one.reason) != (other.codec, other.reason)
    grid = painted(found, heads, tokens)
    columns = [tuple(grid[head, token] for token in range(tokens)) for head in range(heads)]
    assert len(by_heads) == len(set(columns))


def test_a_plain_profile_is_one_run():
    """One rule for everything is one run of all heads and tokens."""
    profile = parse_profile({"schema": "kvq_profile_v1", "name": "p", "rules": [{"codec": "int8"}]})
    (run,) = runs(profile, Role.KEY, 3, layers=4, heads=3, tokens=1000)
    assert (run.heads, run.start, run.stop) == ((0, 1, 2), 0, 1000)
    assert (run.codec, run.reason) == (INT8, Reason.NONE)


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 40), st.integers(1, 40), st.integers(1, 20))
@example(0, 1, 1)
@example(7, 14, 7)
@example(6, 1, 7)
@example(6, 2, 7)
def test_lengths_of_pages_are_those_of_the_pages(start, tokens, page_tokens):
    """Counting them needs no look at each, however many there are."""
    run = Run((0,), start, start + tokens, RAW, Reason.NONE)
    walked = Counter(stop - begin for begin, stop in pages(run, page_tokens))
    assert page_lengths(run, page_tokens) == walked
    assert 0 not in page_lengths(run, page_tokens)


def test_lengths_of_more_pages_than_there_is_time_for():
    """A ragged first page, whole ones, a ragged last one."""
    run = Run((0,), 3, 7 * 10**15 + 1, RAW, Reason.NONE)
    assert page_lengths(run, 7) == {4: 1, 7: 10**15 - 1, 1: 1}


def test_protection_is_exact():
    """Protected tokens and heads are cut out to the token, with their own reason."""
    protected = Protected(first_tokens=4, last_tokens=3, heads=(Range(-1, None),))
    profile = Profile(name="p", rules=(Rule(INT8),), protected=protected)
    found = runs(profile, Role.VALUE, 0, layers=1, heads=3, tokens=100)
    assert [(run.heads, run.start, run.stop, run.reason) for run in found] == [
        ((0, 1), 0, 4, Reason.PROTECTED),
        ((2,), 0, 100, Reason.PROTECTED),
        ((0, 1), 4, 97, Reason.NONE),
        ((0, 1), 97, 100, Reason.PROTECTED),
    ]


def test_protection_and_a_raw_rule_stay_apart():
    """Raw by rule has no reason, so it does not merge with raw by protection."""
    profile = Profile(name="p", rules=(Rule(RAW),), protected=Protected(first_tokens=2))
    found = runs(profile, Role.KEY, 0, layers=1, heads=1, tokens=5)
    assert [(run.stop, run.reason) for run in found] == [(2, Reason.PROTECTED), (5, Reason.NONE)]


@pytest.mark.parametrize("count", [4, 5, 2**32 - 1])
def test_protection_may_exceed_the_layer(count):
    """More protected tokens than there are protect all of them, in one run."""
    for protected in (Protected(first_tokens=count), Protected(last_tokens=count)):
        profile = Profile(name="p", rules=(Rule(INT8),), protected=protected)
        (run,) = runs(profile, Role.KEY, 0, layers=1, heads=2, tokens=4)
        assert (run.start, run.stop, run.reason) == (0, 4, Reason.PROTECTED)


def test_no_heads_or_tokens_is_no_run():
    """A layer that holds nothing has no runs."""
    profile = Profile(name="p", rules=(Rule(INT8),))
    assert runs(profile, Role.KEY, 0, layers=1, heads=0, tokens=4) == ()
    assert runs(profile, Role.KEY, 0, layers=1, heads=4, tokens=0) == ()


@pytest.mark.parametrize("layer", [-1, 2])
def test_a_layer_outside_is_a_mistake_of_the_caller(layer):
    """A layer number is checked: a negative one would count from the wrong end."""
    with pytest.raises(ValueError):
        runs(Profile(name="p", rules=(Rule(INT8),)), Role.KEY, layer, layers=2, heads=1, tokens=1)


@settings(deadline=None, max_examples=100)
@given(profiles, st.integers(1, 40), st.integers(1, 9))
@example(Profile(name="p", rules=(Rule(INT8),)), 16, 8)
def test_pages_lie_on_the_grid_of_the_layer(profile, tokens, page_tokens):
    """Pages join to the run, and are cut at multiples of page_tokens and nowhere else."""
    for run in runs(profile, Role.KEY, 0, layers=1, heads=2, tokens=tokens):
        cut = pages(run, page_tokens)
        assert [token for start, stop in cut for token in range(start, stop)] == list(
            range(run.start, run.stop)
        )
        assert all(start % page_tokens == 0 for start, _ in cut[1:])
        assert all(start // page_tokens == (stop - 1) // page_tokens for start, stop in cut)


def test_codec_table_has_raw_first_and_nothing_twice():
    """Raw is always there; the others come in order of first mention over all profiles."""
    key = Profile(name="k", rules=(Rule(INT8, Role.KEY), Rule(LOSSLESS)))
    value = Profile(name="v", rules=(Rule(LOSSLESS),))
    assert codec_table(value) == (RAW, LOSSLESS)
    assert codec_table(key, value) == (RAW, INT8, LOSSLESS)
    assert codec_table(value, key) == (RAW, LOSSLESS, INT8)


def test_a_profile_needs_a_last_rule_for_everything():
    """A Profile built in code cannot leave a page without a codec."""
    for wrong in ((), (Rule(INT8, Role.KEY),)):
        with pytest.raises(ValueError):
            Profile(name="p", rules=wrong)


def test_runs_of_a_large_capture_take_no_time():
    """128 layers of 128 heads and a million tokens: about 20 ms, asserted with much room."""
    profile = parse_profile(
        {
            "schema": "kvq_profile_v1",
            "name": "p",
            "rules": [
                {"role": "key", "layers": [[0, 2], [-2, None]], "codec": "raw"},
                {"heads": [[0, 8], [64, 65]], "tokens": [[-128, None]], "codec": "lossless"},
                {"codec": "int8"},
            ],
            "protected": {"first_tokens": 4, "heads": [[3, 5]]},
        }
    )
    began = time.process_time()
    for layer in range(128):
        runs(profile, Role.KEY, layer, layers=128, heads=128, tokens=1_000_000)
    assert time.process_time() - began < 0.5

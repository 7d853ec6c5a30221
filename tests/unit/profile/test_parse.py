"""parse_profile: what the vectors do not say about documents and defaults."""

from __future__ import annotations

import math

import pytest

from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.errors import ProfileError
from kvq_cli.profile import (
    Budget,
    Entropy,
    Fallback,
    Protected,
    Range,
    Rule,
    Storage,
    parse_profile,
)
from kvq_cli.words import Role


def parse(**members):
    return parse_profile({"schema": "kvq_profile_v1", "name": "p", "rules": []} | members)


def test_defaults():
    """A profile of three members has the defaults of formats/profile.md."""
    profile = parse()
    assert profile.rules == (Rule(codec_from_json("lossless", {}, "")),)
    assert (profile.description, profile.page_tokens) == ("", 256)
    assert (profile.protected, profile.fallback) == (Protected(), Fallback.KEEP_RAW)
    assert (profile.budget, profile.fixed_rate, profile.calibration_digest) == (None, False, None)
    assert profile.storage == Storage(Entropy.ZSTD, 1, 64)


def test_every_member_arrives():
    """Values end up under their own names."""
    profile = parse(
        rules=[
            {
                "role": "value",
                "layers": [[0, 1]],
                "heads": [[2, 3]],
                "tokens": [[-4, None]],
                "codec": {"name": "int8", "axis": "channel", "scale": "f16"},
            }
        ],
        budget={"min_attention_cosine": 0.5, "max_logit_mse": 2, "on_violation": "fail_closed"},
        protected={"first_tokens": 1, "last_tokens": 2, "layers": [[3, 4]], "heads": [[5, None]]},
        storage={"entropy": "none", "level": 9, "alignment": 4096},
    )
    int8 = codec_from_json("int8", {"axis": "channel", "scale": "f16"}, "")
    assert profile.rules[0] == Rule(
        int8, Role.VALUE, (Range(0, 1),), (Range(2, 3),), (Range(-4, None),)
    )
    assert profile.budget == Budget(
        max_logit_mse=2.0, min_attention_cosine=0.5, on_violation=Fallback.FAIL_CLOSED
    )
    assert profile.protected == Protected(1, 2, (Range(3, 4),), (Range(5, None),))
    assert profile.storage == Storage(Entropy.NONE, 9, 4096)


def test_equal_bounds_have_equal_digests():
    """An integer, a float and a negative zero are the bounds they equal."""
    for one, other in ((1, 1.0), (-0.0, 0.0)):
        first, second = (parse(budget={"max_logit_mse": bound}) for bound in (one, other))
        assert first.digest() == second.digest()


@pytest.mark.parametrize("bound", [math.nan, math.inf, 10**400])
def test_a_bound_is_finite(bound):
    """What JSON text cannot bring may come from Python, and is refused too."""
    with pytest.raises(ProfileError) as refusal:
        parse(budget={"max_logit_mse": bound})
    assert refusal.value.pointer == "/budget/max_logit_mse"


def test_rules_are_counted():
    """4,096 rules are read, one more is not."""
    assert len(parse(rules=[{"codec": "raw"}] * 4096).rules) == 4096
    with pytest.raises(ProfileError) as refusal:
        parse(rules=[{"codec": "raw"}] * 4097)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E404", "/rules")


def test_the_added_rule_counts():
    """A normal form never has more rules than may be read."""
    keys = {"role": "key", "codec": "raw"}
    profile = parse(rules=[keys] * 4095)
    assert parse_profile(profile.to_json()) == profile
    with pytest.raises(ProfileError) as refusal:
        parse(rules=[keys] * 4096)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E404", "/rules")


def test_ranges_are_python_slices():
    """A range resolves as a slice of that length does."""
    for start in range(-4, 5):
        for stop in (None, *range(-4, 5)):
            for length in range(5):
                low, high = Range(start, stop).resolve(length)
                assert list(range(low, high)) == list(range(length))[start:stop]

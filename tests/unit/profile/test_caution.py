"""cautions: profiles that keys of some models do not survive say so."""

from __future__ import annotations

import pytest

from kvq_cli.profile import builtin_names, cautions, load_profile, parse_profile


@pytest.mark.parametrize("name", builtin_names())
def test_only_the_careless_built_in_profile_is_warned_of(name):
    """int4-g64 shares grids along tokens; every other built-in profile is safe for keys."""
    assert len(cautions(load_profile(name))) == (name == "int4-g64")


@pytest.mark.parametrize(
    ("codec", "role", "count"),
    [
        ({"name": "int4"}, None, 1),
        ({"name": "int4", "zero_point": True}, "key", 1),
        ({"name": "kivi", "axis": "token"}, "key", 1),
        ({"name": "kivi", "axis": "token"}, "value", 0),
        ({"name": "kivi", "axis": "channel"}, "key", 0),
        ({"name": "int8"}, None, 0),
        ({"name": "turboquant_mse"}, "key", 1),
        ({"name": "turboquant_mse"}, "value", 0),
        ({"name": "turboquant_prod", "center": True}, "key", 0),
    ],
)
def test_grids_along_tokens_are_for_values(codec, role, count):
    """A rule that reaches keys is told of, one for values is not."""
    rule = {"codec": codec} if role is None else {"codec": codec, "role": role}
    text = {"schema": "kvq_profile_v1", "name": "mine", "rules": [rule, {"codec": "raw"}]}
    assert len(cautions(parse_profile(text))) == count

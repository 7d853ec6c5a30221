"""calibration: every member at its limits, and the digest of the file that it is."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from kvq_cli.contract.fields import Fields
from kvq_cli.digest import json_digest
from kvq_cli.errors import ProfileError
from kvq_cli.jsontext import canonical
from kvq_cli.profile.calibration import Calibration, RoleSummary
from kvq_cli.words import Role

MOST = (1 << 53) - 1
KEY = {
    "head_dim": 8,
    "rows": 40,
    "mean_norm": 1.5,
    "max_norm": 2.5,
    "outlier_rows": 3,
    "outlier_channels": [[0, 1, 2], [1, 0, 7]],
    "mean_energy": 0.25,
    "axis": "channel",
}
WHOLE = {
    "schema": "kvq_calibration_v1",
    "layers": 2,
    "kv_heads": [2, 1],
    "key": KEY,
    "value": {**KEY, "axis": "token", "outlier_channels": []},
    "first_tokens": 4,
    "profile": "int8",
    "bits_per_element": 8.5,
}
# Members, what they may be, and what they may not.
MEMBERS: dict[str, tuple[list[Any], list[Any]]] = {
    "schema": ([], ["kvq_calibration_v2", "", None, ...]),
    "layers": ([], [0, 1, 3, MOST + 1, None, 2.0, True, ...]),
    "kv_heads": (
        [[1, MOST]],
        [[], [1], [1, 1, 1], [0, 1], [1, 0], [1, -1], [1, True], [1, 1.0], {"0": 1}, None, ...],
    ),
    "first_tokens": ([0, MOST], [-1, MOST + 1, None, True, ...]),
    "profile": ([None, "", "x"], [1, []]),
    "bits_per_element": ([None, 0.0, 0.5], ["8", True, -0.5]),
    "key": ([None], [[], "x"]),
    "value": ([None], [1]),
    "more": ([], [None]),
    "key__head_dim": ([1, MOST], [0, MOST + 1, None, ...]),
    "key__rows": ([1, MOST], [0, MOST + 1, None, ...]),
    "key__mean_norm": ([0.0, 1e300], [-0.5, -1e-300, None, "1", ...]),
    "key__max_norm": ([0.0, 1e300], [-0.5, None, ...]),
    "key__mean_energy": ([0.0, 1.0, 7.0], [-0.5, None, ...]),
    "key__outlier_rows": ([0, MOST], [-1, MOST + 1, None, ...]),
    "key__axis": (["channel", "token"], ["tokens", "", None, ...]),
    "key__outlier_channels": (
        [[], [[0, 0, 0]], [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]],
         [[0, 0, at] for at in range(1024)]],
        [[[0, 0]], [[0, 0, 0, 0]], [[0, 0, -1]], [[0, 0, True]], [[0, 0, 0.0]], [[]], [0, 0, 0],
         [[0, 0, 0], [0, 0]],
         [[0, 0, 0], [0, 0, 0]], [[0, 1, 0], [0, 0, 1]],
         [{"0": 0, "1": 0, "2": 0}], ["000"], {}, None, ...],
    ),
    "key__more": ([], [None]),
}  # fmt: skip
GOOD = [(name, value) for name, (good, _) in MEMBERS.items() for value in good]
BAD = [(name, value) for name, (_, bad) in MEMBERS.items() for value in bad]


def changed(name: str, value: Any) -> dict[str, Any]:
    whole = copy.deepcopy(WHOLE)
    *way, last = name.split("__")
    holder: Any = whole[way[0]] if way else whole
    if value is ...:
        del holder[last]
    else:
        holder[last] = value
    return whole


def test_every_member_arrives():
    """Each is the one of its name, of both roles, and is written as it was."""
    found = Calibration.from_json(WHOLE)
    key = RoleSummary(8, 40, 1.5, 2.5, 3, ((0, 1, 2), (1, 0, 7)), 0.25, "channel")
    value = RoleSummary(8, 40, 1.5, 2.5, 3, (), 0.25, "token")
    assert found == Calibration(2, (2, 1), {Role.KEY: key, Role.VALUE: value}, 4, "int8", 8.5)
    assert found.to_json() == WHOLE
    assert found.digest() == json_digest("kvq_calibration_v1", canonical(WHOLE))
    assert RoleSummary.from_json(Fields(KEY)) == key


@pytest.mark.parametrize(("name", "value"), GOOD)
def test_what_a_member_may_be(name, value):
    """It is read, and written as it was."""
    whole = changed(name, value)
    assert Calibration.from_json(whole).to_json() == whole


@pytest.mark.parametrize(("name", "value"), BAD)
def test_what_a_member_may_not_be(name, value):
    """It is refused, and named by its pointer."""
    with pytest.raises(ProfileError) as refusal:
        Calibration.from_json(changed(name, value))
    pointer = "/" + name.replace("__", "/")
    holder = pointer.rpartition("/")[0] if value is ... else pointer
    assert refusal.value.error_id == "E401"
    if name != "layers":  # of which the heads tell as many
        assert f"{refusal.value.pointer}/".startswith(f"{holder}/")


@pytest.mark.parametrize("role", ["key", "value"])
def test_a_role_that_is_not_there(role):
    """Missing or null, it is written as null."""
    for value in (None, ...):
        found = Calibration.from_json(changed(role, value))
        assert [each.word for each in found.roles] == [({"key", "value"} - {role}).pop()]
        assert found.to_json() == WHOLE | {role: None}


@pytest.mark.parametrize(("layers", "heads", "good"), [(1, [3], True), (0, [], False)])
def test_layers_and_their_heads(layers, heads, good):
    """One layer is enough, none is too few."""
    whole = WHOLE | {"layers": layers, "kv_heads": heads}
    if good:
        assert Calibration.from_json(whole).kv_heads == tuple(heads)
        return
    with pytest.raises(ProfileError) as refusal:
        Calibration.from_json(whole)
    assert refusal.value.pointer == "/layers"


def test_too_many_outliers():
    """1,024 channels are listed, one more is a limit."""
    places = [[0, 0, at] for at in range(1025)]
    with pytest.raises(ProfileError) as refusal:
        Calibration.from_json(changed("key__outlier_channels", places))
    assert (refusal.value.error_id, refusal.value.pointer) == ("E404", "/key/outlier_channels")


def test_no_negative_zero():
    """Equal figures have equal digests."""
    found = Calibration.from_json(changed("key__mean_norm", -0.0))
    assert str(found.roles[Role.KEY].mean_norm) == "0.0"

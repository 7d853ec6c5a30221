"""Groups: which layers go together, and where a group ends."""

from __future__ import annotations

import pytest

from kvq_cli.errors import ProfileError
from kvq_cli.steps.given import opened
from kvq_cli.steps.grouping import Stretch, Turns, share_kept, stretches
from kvq_cli.words import MAX_TABLE_BYTES, Role
from support.calibrating import METADATA, write_captures
from support.captures import per_layer_capture


def found(tmp_path, data, metadata=None):
    path = tmp_path / "c.safetensors"
    path.write_bytes(data)
    with opened([path], [], None, dict(metadata or METADATA)) as captures:
        return stretches(captures, Turns.of(captures[0], needed=False))


def told(groups):
    return [(each.role.word, each.first, len(each.places), each.turn) for each in groups]


META = {"rope_state": "post", "rope_theta": "10000.0"}


def test_layers_that_are_alike_are_one_stretch(tmp_path):
    (path,) = write_captures(tmp_path, 1)
    whole = found(tmp_path, path.read_bytes(), {"rope_theta": "10000.0"})
    assert told(whole) == [("key", 0, 3, 0), ("value", 0, 3, None)]
    assert told(whole[0].cut(2)) == [("key", 0, 2, 0), ("key", 2, 1, 0)]
    assert told(whole[0].cut(9)) == [("key", 0, 3, 0)]


def test_other_tokens_end_a_stretch(tmp_path):
    """Layers of another length have pages of their own."""
    whole = found(tmp_path, per_layer_capture(tokens=(9, 9, 5, 9)), META)
    assert told(whole)[:3] == [("key", 0, 2, 0), ("key", 2, 1, 0), ("key", 3, 1, 0)]
    assert [each[:3] for each in told(whole)[3:]] == [
        ("value", 0, 2), ("value", 2, 1), ("value", 3, 1),
    ]  # fmt: skip


def test_kinds_of_layers_and_their_turns_end_a_stretch(tmp_path):
    """Five that slide and one that does not, as Gemma has them; values too."""
    kinds = '["s","s","s","s","s","f","s"]'
    more = {"rope_theta": '{"s": 10000.0, "f": 1000000.0}', "layer_types": kinds}
    whole = found(tmp_path, per_layer_capture(tokens=(9,) * 7), META | more)
    assert told(whole) == [
        ("key", 0, 5, 0), ("key", 5, 1, 1), ("key", 6, 1, 0),
        ("value", 0, 5, None), ("value", 5, 1, None), ("value", 6, 1, None),
    ]  # fmt: skip


@pytest.mark.parametrize("state", ["pre", "none"])
def test_keys_that_are_not_turned_have_no_turn(tmp_path, state):
    """Nor does anybody need to know how they would be."""
    whole = found(tmp_path, per_layer_capture(), {"rope_state": state})
    assert [each.turn for each in whole] == [None, None]


def test_too_many_kinds_of_turns(tmp_path):
    bases = ", ".join(f'"{at}": {at + 2}' for at in range(9))
    kinds = ", ".join(f'"{at}"' for at in range(9))
    more = {"rope_theta": f"{{{bases}}}", "layer_types": f"[{kinds}]"}
    with pytest.raises(ProfileError) as refusal:
        found(tmp_path, per_layer_capture(tokens=(2,) * 9), META | more)
    assert refusal.value.error_id == "E404"


def test_a_group_has_at_most_4096_dimensions(tmp_path):
    """So many layers, and a layer of more is refused."""
    wide = Stretch(Role.KEY, range(10), 0, 8, 128, None)
    assert [len(each.places) for each in wide.cut(9)] == [4, 4, 2]
    assert wide.tried == 2
    assert Stretch(Role.KEY, range(10), 0, 32, 128, None).tried == 1
    with pytest.raises(ProfileError) as refusal:
        found(tmp_path, per_layer_capture(tokens=(2,), heads=33, channels=128), META)
    assert refusal.value.error_id == "E404"


def test_the_table_has_room_for_all_groups():
    """64 groups of 1,024 dimensions keep half of their components, one keeps all."""
    wide = Stretch(Role.KEY, range(64), 0, 8, 128, None)
    share = share_kept([wide], 1)
    assert 0.4 < share < 0.5
    assert 64 * int(share * 1024) * 1024 * 2 < MAX_TABLE_BYTES
    assert share_kept(wide.cut(4)[:1], 1) == 1.0

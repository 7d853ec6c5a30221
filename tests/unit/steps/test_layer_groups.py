"""layer_groups: which layers share their pages, counted from a profile or given."""

from __future__ import annotations

import pytest

from kvq_cli.capture import open_capture
from kvq_cli.capture.memory import Memory
from kvq_cli.profile import parse_profile
from kvq_cli.steps import layer_groups as grouping
from kvq_cli.steps.calibrated import Calibrated
from kvq_cli.steps.choose import Choice
from kvq_cli.steps.plan import make_plan
from kvq_cli.words import Role
from support.captures import kv_bits

K, V = Role.KEY, Role.VALUE
PLAIN = dict.fromkeys(range(6), (1, 2, 5, 4))  # batch, heads, tokens, channels
GAP = dict.fromkeys((0, 1, 3, 4, 5, 9), PLAIN[0])


def capture_of(layers, values=None):
    """A capture in memory of these shapes by layer; values have others where told so."""
    tensors = {}
    for role, shapes in ((K, layers), (V, layers | (values or {}))):
        for layer, shape in shapes.items():
            if shape is not None:
                tensors[f"layers.{layer}.{role.word}"] = ("F16", kv_bits(shape))
    return open_capture(Memory(tensors, {}), "hf")


def plan_of(layers=PLAIN, values=None, given=None, **members):
    told = {"schema": "kvq_profile_v1", "name": "p", "rules": [{"codec": "int8"}]} | members
    profile = parse_profile(told)
    more = {"calibration": Calibrated(groups=given)} if given else {}
    choices = (Choice((K, V), profile, profile.content_json(), profile.digest()),)
    return make_plan(capture_of(layers, values), choices, profile.storage, **more)


def groups(plan, role=K):
    return list(plan.groups[role].items())


def alone(*layers):
    return [(layer, 1) for layer in layers]


@pytest.mark.parametrize(
    ("layers", "members", "keys"),
    [
        (PLAIN, {}, alone(*range(6))),
        (PLAIN, {"page_layers": 2}, [(0, 2), (2, 2), (4, 2)]),
        (PLAIN, {"page_layers": 4}, [(0, 4), (4, 2)]),
        (PLAIN, {"page_layers": 4096}, [(0, 6)]),
        # layers that are not there, and those of another shape, end a stretch
        (GAP, {"page_layers": 2}, [(0, 2), (3, 2), (5, 1), (9, 1)]),
        (PLAIN | {2: (1, 2, 4, 4)}, {"page_layers": 2}, [(0, 2), (2, 1), (3, 2), (5, 1)]),
        (PLAIN | {2: (1, 1, 5, 4)}, {"page_layers": 3}, [(0, 2), (2, 1), (3, 3)]),
        (PLAIN | {2: (1, 2, 5, 3)}, {"page_layers": 3}, [(0, 2), (2, 1), (3, 3)]),
        (PLAIN | {2: (2, 2, 5, 4)}, {"page_layers": 3}, [(0, 2), (2, 1), (3, 3)]),
        # so do those that are treated in another way
        (PLAIN, {"page_layers": 2, "protected": {"layers": [[1, 2]]}},
         [(0, 1), (1, 1), (2, 2), (4, 2)]),
        (PLAIN, {"page_layers": 3, "protected": {"layers": [[1, 3]]}}, [(0, 1), (1, 2), (3, 3)]),
        (PLAIN, {"page_layers": 3, "protected": {"heads": [[0, 1]], "first_tokens": 2}},
         [(0, 3), (3, 3)]),
        (PLAIN, {"page_layers": 3, "rules": [{"layers": [[-2, None]], "codec": "raw"}]},
         [(0, 3), (3, 1), (4, 2)]),
        # a rule for some layers that says what the next one does changes nothing
        (PLAIN, {"page_layers": 3, "rules": [{"layers": [[-2, None]], "codec": "lossless"}]},
         [(0, 3), (3, 3)]),
    ],
    ids=range(14),
)  # fmt: skip
def test_what_a_profile_counts(layers, members, keys):
    """Stretches of layers that are alike, cut from their first layer on."""
    assert groups(plan_of(layers, **members)) == keys


def test_roles_are_grouped_by_themselves():
    """Values of one layer differ, or are not there: that of keys is nothing to them."""
    plan = plan_of(values={1: (1, 2, 5, 3), 4: None}, page_layers=3)
    assert groups(plan) == [(0, 3), (3, 3)]
    assert groups(plan, V) == [(0, 1), (1, 1), (2, 2), (5, 1)]


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        ([], alone(*range(6))),
        ([(1, 3)], [(0, 1), (1, 3), (4, 1), (5, 1)]),
        ([(4, 2), (0, 2)], [(0, 2), (2, 1), (3, 1), (4, 2)]),
        # a group falls apart where layers are missing, of another shape, or treated otherwise
        ([(0, 2), (4, 3)], [(0, 2), *alone(2, 3, 4, 5)]),
        ([(7, 2)], alone(*range(6))),
        ([(0, 0)], alone(*range(6))),
    ],
)
def test_groups_that_are_given(given, keys):
    """They replace what the profile counts, for the role that they are given for."""
    plan = plan_of(given={K: given}, page_layers=2)
    assert groups(plan) == keys
    assert groups(plan, V) == [(0, 2), (2, 2), (4, 2)]


def test_given_groups_of_unlike_layers():
    """Of other shape or treatment: single layers; what overlaps is a mistake of the caller."""
    ragged = plan_of(PLAIN | {2: (1, 2, 4, 4)}, given={K: [(0, 2), (2, 3)]})
    assert groups(ragged) == [(0, 2), *alone(2, 3, 4, 5)]
    protected = plan_of(given={K: [(0, 2), (2, 3)]}, protected={"layers": [[3, 4]]})
    assert groups(protected) == [(0, 2), *alone(2, 3, 4, 5)]
    with pytest.raises(ValueError, match="overlap"):
        plan_of(given={K: [(0, 2), (1, 2)]})


# A layer of PLAIN has 2 heads of 5 tokens of 4 channels: pages of 4 tokens have 64 bytes at most.
@pytest.mark.parametrize(
    ("most", "keys", "given"),
    [
        (10_000, [(0, 4), (4, 2)], [(0, 4), (4, 1), (5, 1)]),
        (256, [(0, 4), (4, 2)], [(0, 4), (4, 1), (5, 1)]),
        (255, [(0, 3), (3, 3)], alone(*range(6))),
        (128, [(0, 2), (2, 2), (4, 2)], alone(*range(6))),
        (127, alone(*range(6)), alone(*range(6))),
        (1, alone(*range(6)), alone(*range(6))),
    ],
)
def test_no_page_is_too_large(most, keys, given, monkeypatch):
    """A stretch has as many layers a group as fit; a group that is given fits or falls apart."""
    monkeypatch.setattr(grouping, "MAX_PAGE", most)
    assert groups(plan_of(page_layers=4, page_tokens=4)) == keys
    assert groups(plan_of(given={K: [(0, 4)]}, page_tokens=4)) == given


def test_protected_heads_make_small_pages(monkeypatch):
    """The largest page of a layer counts, not the layer."""
    monkeypatch.setattr(grouping, "MAX_PAGE", 128)
    plan = plan_of(page_layers=4, page_tokens=4, protected={"heads": [[1, 2]]})
    assert groups(plan) == [(0, 4), (4, 2)]


def test_pages_of_a_group():
    """All pages of a group have its layers; they come in container order, batch by batch."""
    shapes = dict.fromkeys(range(3), (2, 2, 5, 4))
    plan = plan_of(shapes, page_layers=2, page_tokens=4, protected={"heads": [[1, 2]]})
    keys = [page.record.key for page in plan.pages()]
    assert keys == sorted(keys)
    assert [(key.batch, key.layer, key.layers, key.start) for key in keys[:12:2]] == [
        (0, 0, 2, 0), (0, 0, 2, 4), (0, 2, 1, 0), (0, 2, 1, 4), (1, 0, 2, 0), (1, 0, 2, 4),
    ]  # fmt: skip
    assert sum(page.nbytes for page in plan.pages()) == plan.manifest.source_bytes
    assert max(page.nbytes for page in plan.pages()) <= plan.largest_page == 2 * 2 * 4 * 4 * 2


def test_a_page_apart():
    """The rows of each layer by itself: its own slab, everything else the page's."""
    page = next(plan_of(page_layers=3).pages())
    singles = list(page.apart())
    assert [single.slab.layer for single in singles] == [0, 1, 2]
    assert [single.record.key.every_layer for single in singles] == [
        range(layer, layer + 1) for layer in range(3)
    ]
    assert {single.nbytes for single in singles} == {page.nbytes // 3}
    assert {single.codec for single in singles} == {page.codec}

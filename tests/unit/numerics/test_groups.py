"""groups: shapes, pairs and extremes of what shares a scale, rests included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.numerics.groups import Groups
from kvq_cli.numerics.scratch import Scratch

AXES = ["token", "channel"]
KINDS = ["<i2", "<i4", "<u2", "<u4"]


def number_of(groups, shape):
    """The group of each element, as an index of what there is one of per group."""
    _, tokens, channels = shape
    along = np.arange(channels) if groups.axis == "token" else np.arange(tokens)[:, None]
    return np.broadcast_to(along // groups.size, shape)


def plain_extreme(groups, elements, plain):
    found = np.empty(groups.shape(elements.shape), elements.dtype)
    numbers = number_of(groups, elements.shape)
    axis = 2 if groups.axis == "token" else 1
    for group in range(found.shape[axis]):
        members = np.flatnonzero(np.moveaxis(numbers, axis, 0)[:, 0, 0] == group)
        block = np.take(elements, members, axis=axis)
        place = [slice(None)] * 3
        place[axis] = group
        found[tuple(place)] = plain(block, axis=axis)
    return found


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize(
    ("size", "along", "count"),
    [(32, 1, 1), (32, 31, 1), (32, 32, 1), (32, 33, 2), (32, 64, 2), (1, 5, 5), (3, 10, 4)],
)
def test_shapes_count_groups(axis, size, along, count):
    """As many groups as it takes, the last one perhaps smaller; nothing else is divided."""
    page = (2, 7, along) if axis == "token" else (2, along, 7)
    expected = (2, 7, count) if axis == "token" else (2, count, 7)
    assert Groups(axis, size).shape(page) == expected


@pytest.mark.parametrize(("axis", "shape"), [("token", (2, 50, 1)), ("channel", (2, 1, 60))])
def test_rows_are_one_group(axis, shape):
    """Without a size, a token or a channel is one group, however long."""
    assert Groups(axis).shape((2, 50, 60)) == shape


@pytest.mark.parametrize("axis", AXES)
@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 70)),
    size=st.sampled_from([1, 2, 3, 5, 8, 31, 32, 33, 64, 128]),
    kind=st.sampled_from(KINDS),
    least=st.booleans(),
    seed=st.integers(0, 1 << 16),
)
def test_extremes_are_those_of_each_group(axis, shape, size, kind, least, seed):
    """Whichever way is taken for a dtype and a length, a plain loop finds the same."""
    groups, rng = Groups(axis, size), np.random.default_rng(seed)
    span = np.iinfo(kind)
    elements = rng.integers(span.min, span.max, shape, np.dtype(kind), endpoint=True)
    before = elements.copy()
    ufunc, plain = (np.minimum, np.min) if least else (np.maximum, np.max)
    found = groups.extreme(ufunc, elements, Scratch())
    assert np.array_equal(found, plain_extreme(groups, elements, plain))
    assert np.array_equal(elements, before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [127, 128, 129, 256, 300])
@pytest.mark.parametrize("axis", AXES)
def test_long_rows_have_their_extremes(axis, channels, kind):
    """Around the length where reductions begin to pay, and far beyond it."""
    rng = np.random.default_rng(channels)
    shape = (2, 9, channels) if axis == "token" else (2, channels, 9)
    elements = rng.integers(0, 30000, shape).astype(kind)
    found = Groups(axis).extreme(np.maximum, elements, Scratch())
    assert np.array_equal(found, elements.max(axis=2 if axis == "token" else 1, keepdims=True))


def test_extremes_do_not_depend_on_what_scratch_held():
    """Buffers of a larger page leave nothing behind."""
    scratch, rng = Scratch(), np.random.default_rng(1)
    for shape in ((4, 100, 128), (1, 3, 5), (2, 33, 70)):
        elements = rng.integers(0, 60000, shape).astype("<u2")
        for groups in (Groups("token", 32), Groups("channel", 8)):
            fresh = groups.extreme(np.maximum, elements, Scratch())
            assert np.array_equal(groups.extreme(np.maximum, elements, scratch), fresh)


@pytest.mark.parametrize("axis", AXES)
@settings(deadline=None, max_examples=60)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    size=st.sampled_from([1, 2, 3, 7, 8, 32, 64]),
)
def test_apply_meets_every_element_once_with_its_own_group(axis, shape, size):
    """Elements get what their group has, and are changed in place."""
    groups = Groups(axis, size)
    elements = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    expected = elements * 1000 + number_of(groups, shape)
    per_group = np.empty(groups.shape(shape), np.int64)
    along = np.arange(per_group.shape[2 if axis == "token" else 1])
    per_group[:] = along if axis == "token" else along[:, None]
    elements *= 1000
    groups.apply(np.add, elements, per_group)
    assert np.array_equal(elements, expected)


@pytest.mark.parametrize("axis", AXES)
def test_apply_writes_through_strided_views(axis):
    """Elements that are a part of something larger are changed there."""
    larger = np.ones((2, 20, 90))
    groups = Groups(axis, 8)
    view = larger[:, ::2, 5:83]
    groups.apply(np.multiply, view, np.full(groups.shape(view.shape), 3.0))
    assert (view == 3).all()
    assert larger.sum() == larger.size + 2 * view.size

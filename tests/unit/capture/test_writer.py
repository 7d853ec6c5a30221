"""writer: one content, one header, which both parsers read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from kvq_cli.capture import gatekeeper
from kvq_cli.capture.header import parse_header
from kvq_cli.capture.writer import header_bytes
from kvq_cli.words import ELEMENT_BITS

TENSORS = st.dictionaries(
    st.text(max_size=4).filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(list(ELEMENT_BITS)),
        st.lists(st.integers(0, 3), max_size=3).map(lambda shape: (*shape, 4)),
    ),
    max_size=5,
)


@settings(deadline=None, max_examples=100)
@given(TENSORS, st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3), st.randoms())
def test_deterministic(tensors: dict, metadata: dict, random) -> None:
    """The order of arguments does not matter, tensors are aligned, and both parsers read them."""
    table = [(name, dtype, shape) for name, (dtype, shape) in tensors.items()]
    raw = header_bytes(table, metadata)
    random.shuffle(table)
    assert header_bytes(table, dict(reversed(metadata.items()))) == raw
    assert len(raw) % 8 == 0
    size = sum(int(np.prod(shape)) * ELEMENT_BITS[dtype] // 8 for _, dtype, shape in table)
    header = parse_header(raw, len(raw) + size)
    gatekeeper.check(header)
    assert header.metadata == metadata
    assert {(one.name, one.dtype, one.shape) for one in header.tensors} == set(table)
    for tensor in header.tensors:
        assert tensor.nbytes == 0 or tensor.start % max(1, ELEMENT_BITS[tensor.dtype] // 8) == 0


def test_official_bytes() -> None:
    """Without metadata the header is the official writer's own, names and dtypes of any kind."""
    dtypes = ["u1", "i1", "f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "?"]
    arrays = {
        f'{name}"\\\u00e9\x1f{dtype}': np.zeros((2, 3), dtype) for dtype in dtypes for name in "ab"
    }
    official = save(arrays)
    size = 8 + int.from_bytes(official[:8], "little")
    members = json.loads(official[8:size])
    table = [(name, entry["dtype"], tuple(entry["shape"])) for name, entry in members.items()]
    assert header_bytes(table[::-1], {}) == official[:size]


@pytest.mark.parametrize(
    "tensors",
    [
        [("a", "U8", (1,)), ("a", "F16", (2,))],
        [("__metadata__", "U8", (1,))],
        [("a", "F4", (3,))],
    ],
)
def test_impossible_tables(tensors: list) -> None:
    """Tables that no capture can have are a bug of the caller."""
    with pytest.raises(AssertionError):
        header_bytes(tensors, {})

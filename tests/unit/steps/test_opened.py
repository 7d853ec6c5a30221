"""A container as an object: rows by role, layer, head and token."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.errors import FileError, UsageError
from kvq_cli.pipeline import compress
from kvq_cli.profile import parse_profile
from kvq_cli.steps.opened import open_container
from kvq_cli.words import DType, Role
from support.captures import canonical_capture, kv_bits, seed_of

LAYERS, HEADS, TOKENS, CHANNELS = 2, 3, 37, 8
PAGES_OF_FIVE = parse_profile(
    {
        "schema": "kvq_profile_v1",
        "name": "small-pages",
        "page_tokens": 5,
        "rules": [{"heads": [[1, 2]], "codec": "raw"}, {"codec": "lossless"}],
        "protected": {"first_tokens": 3},
    }
)


@pytest.fixture(scope="module")
def container(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opened")
    capture = folder / "cache"
    capture.write_bytes(
        canonical_capture(layers=LAYERS, heads=HEADS, tokens=TOKENS, channels=CHANNELS)
    )
    compress(capture, folder / "cache.kvq", profiles=[PAGES_OF_FIVE], threads=1)
    return folder / "cache.kvq"


@pytest.fixture(scope="module")
def values():
    """The bits of the values, (L, H, T, D)."""
    shape = (1, LAYERS, HEADS, TOKENS, CHANNELS)
    return kv_bits(shape, "F16", seed_of("value"))[0]


@given(
    heads=st.lists(st.integers(-HEADS, HEADS - 1), min_size=1, max_size=6),
    tokens=st.lists(st.integers(-TOKENS, TOKENS - 1), min_size=1, max_size=50),
    layer=st.integers(0, LAYERS - 1),
)
@settings(deadline=None, max_examples=60)
def test_rows_come_in_the_order_asked_for(container, values, heads, tokens, layer):
    """Any list of heads and tokens, repeated and unsorted ones too, equals NumPy's indexing."""
    with open_container(container) as opened:
        found = opened.rows(Role.VALUE, layer, heads=heads, tokens=tokens, dtype=None)
    assert np.array_equal(found, values[layer][np.ix_(heads, tokens)])


def test_all_rows_as_floats(container, values):
    """Without a choice everything comes, as float32."""
    with open_container(container) as opened:
        found = opened.rows(Role.VALUE, 1)
    assert found.dtype == np.float32
    assert np.array_equal(found, values[1].view("<f2").astype(np.float32))


def test_one_head_and_one_token_keep_their_axes(container):
    """A single number is a list of one."""
    with open_container(container) as opened:
        assert opened.rows(Role.KEY, 0, heads=2, tokens=-1).shape == (1, 1, CHANNELS)


def test_sizes_are_measured_and_said(container):
    """Bytes of the source, as float32, of the file, and their ratio."""
    with open_container(container) as opened:
        elements = 2 * LAYERS * HEADS * TOKENS * CHANNELS
        assert (opened.source_bytes, opened.float32_bytes) == (2 * elements, 4 * elements)
        assert opened.file_bytes == container.stat().st_size
        assert opened.ratio == opened.source_bytes / opened.file_bytes
        assert opened.layers == (0, 1)


@pytest.mark.parametrize(
    "choice",
    [
        {"layer": LAYERS},
        {"layer": -1},
        {"layer": 0, "batch": 1},
        {"layer": 0, "heads": [HEADS]},
        {"layer": 0, "tokens": [0, TOKENS]},
        {"layer": 0, "tokens": -TOKENS - 1},
    ],
)
def test_what_is_not_there_is_a_usage_error(container, choice):
    """Layer, batch entry, head and token out of range: one class, one id."""
    with open_container(container) as opened, pytest.raises(UsageError) as refusal:
        opened.rows(Role.KEY, **choice)
    assert refusal.value.error_id == "E101"


def test_a_role_that_a_layer_lacks(tmp_path):
    """Keys without values: reading values is a usage error, reading keys is not."""
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture(layers=1, roles=("key",)))
    compress(capture, tmp_path / "cache.kvq", threads=1)
    with open_container(tmp_path / "cache.kvq") as opened:
        assert opened.rows(Role.KEY, 0, dtype=DType.F16).dtype == np.float16
        with pytest.raises(UsageError):
            opened.rows(Role.VALUE, 0)


def test_a_missing_file(tmp_path):
    """The system's word, as a FileError."""
    with pytest.raises(FileError) as refusal:
        open_container(tmp_path / "missing.kvq")
    assert refusal.value.error_id == "E601"

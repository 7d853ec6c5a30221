"""Calibrations as files: read back, and refused where anything is not as the page says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from blake3 import blake3

from kvq_cli.codecs.basis import Basis, Group
from kvq_cli.errors import FileError, ProfileError
from kvq_cli.steps.kvqcal import SCHEMA, file_of, load_kvqcal
from kvq_cli.steps.rounding import Forward
from kvq_cli.words import Role
from support.captures import raw_safetensors

EMPTY = {"dtype": "I16", "shape": [0], "data_offsets": [0, 0]}


def parts():
    """Two groups, and their forward matrices."""
    random = np.random.default_rng(0)
    groups, forward = [], []
    for role, rank in ((Role.KEY, 3), (Role.VALUE, 0)):

        def draw(*shape, most=60):
            return random.integers(-most, most + 1, shape).astype(np.int16)

        groups.append(Group(role, 0, 1, 2, 4, None, np.ones(8, np.float32), draw(8), draw(rank, 8)))
        forward.append(Forward(draw(8, rank, most=32767), draw(8), draw(rank, most=200)))
    return Basis((), tuple(groups)), forward


def written(metadata=None):
    basis, forward = parts()
    header, data = file_of(basis.to_bytes(), forward, metadata or {"tokens": "7"})
    return header.raw + b"".join(map(bytes, data))


def split(data):
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def joined(members, rest):
    return raw_safetensors(json.dumps(members), rest)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "m.kvqcal"


def test_a_file_is_read_back(path):
    path.write_bytes(written())
    found = load_kvqcal(path)
    basis, forward = parts()
    assert found.table == basis.to_bytes() == found.basis.to_bytes()
    assert found.digest == f"blake3:{blake3(path.read_bytes()).hexdigest()}"
    assert found.metadata == {"schema": SCHEMA, "tokens": "7"}
    for one, other in zip(found.forward, forward, strict=True):
        np.testing.assert_array_equal(one.matrix, other.matrix)
        np.testing.assert_array_equal(one.inward, other.inward)
        np.testing.assert_array_equal(one.outward, other.outward)


def refused(path, data, error="E401"):
    path.write_bytes(data)
    with pytest.raises(ProfileError) as refusal:
        load_kvqcal(path)
    assert refusal.value.error_id == error


def test_every_cut_and_anything_behind_is_refused(path):
    data = written()
    for end in (*range(0, len(data), 7), len(data) - 1):
        refused(path, data[:end])
    refused(path, data + b"\0")


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members["__metadata__"].update(schema="kvq_transform_v2"),
        lambda members: members.pop("__metadata__"),
        lambda members: members.update(other=members.pop("basis")),
        lambda members: members["basis"].update(dtype="I8"),
        lambda members: members["basis"].update(shape=[1, *members["basis"]["shape"]]),
        lambda members: members.update({"forward.2": members.pop("forward.1")}),
        lambda members: members.update({"forward.00": members.pop("forward.0")}),
        lambda members: members["forward.0"].update(shape=[3, 8]),
        lambda members: members["forward.0"].update(dtype="F16"),
        lambda members: members["forward.0.in"].update(shape=[4, 2]),
        lambda members: members.update(a=EMPTY),
    ],
)  # fmt: skip
def test_tensors_are_just_those_that_the_table_asks_for(path, change):
    """Another name, shape, dtype or schema, one more, one less."""
    members, rest = split(written())
    change(members)
    refused(path, joined(members, rest))


@pytest.mark.parametrize(
    ("name", "value"),
    [("forward.0", -(2**15)), ("forward.0.in", 61), ("forward.0.in", -61), ("forward.0.out", 201)],
)
def test_numbers_beyond_their_limits(path, name, value):
    data = bytearray(written())
    members, rest = split(bytes(data))
    at = len(data) - len(rest) + members[name]["data_offsets"][0]
    data[at : at + 2] = value.to_bytes(2, "little", signed=True)
    refused(path, bytes(data))


def test_a_table_that_is_none(path):
    """Each byte of its head, and each number of the first group but where it begins."""
    data = bytearray(written())
    members, rest = split(bytes(data))
    at = len(data) - len(rest) + members["basis"]["data_offsets"][0]
    for place in (*range(24), 32, 40, 44, 48, 52, 56, 60):
        changed = bytearray(data)
        changed[at + place] ^= 0x81
        refused(path, bytes(changed))


def test_sizes_are_looked_at_first(path):
    """Sparse files: a header that is too long, a table, a whole file."""
    with path.open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(ProfileError) as refusal:
        load_kvqcal(path)
    assert refusal.value.error_id == "E404"
    members = {"__metadata__": {"schema": SCHEMA}}
    size = (1 << 26) + 1
    members["basis"] = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    head = joined(members, b"")
    for start, length in ((head, len(head) + size), ((9 << 20).to_bytes(8, "little"), 10 << 20)):
        with path.open("wb") as file:
            file.write(start)
            file.truncate(length)
        with pytest.raises(ProfileError) as refusal:
            load_kvqcal(path)
        assert refusal.value.error_id == "E404"


def test_a_file_that_is_not_there(path):
    with pytest.raises(FileError):
        load_kvqcal(path)

"""verify --explain: the bytes that are wrong lie in the range that is named, whatever they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvq_cli.errors import ContainerError
from kvq_cli.pipeline import verify
from kvq_cli.steps.explain import explained
from support.captures import canonical_capture, per_layer_capture
from support.shell import done, kvq, refused

RANGE = re.compile(r"bytes (\d+) to (\d+): (.*)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two containers of captures of one shape, and their bytes."""
    root = tmp_path_factory.mktemp("explain")
    for name, metadata in (("a", {}), ("b", {"model": "other"})):
        (root / name).write_bytes(
            canonical_capture(layers=3, heads=2, tokens=70, channels=16, metadata=metadata)
        )
        done("compress", root / name, "-q", "-p", "int8", "-o", root / f"{name}.kvq")
    return root


def told(path):
    """The range and the words that explain why a file is refused."""
    with pytest.raises(ContainerError) as refusal:
        verify(path, threads=1)
    error = explained(refusal.value, path)
    assert error.error_id == refusal.value.error_id
    match = RANGE.search(str(error))
    assert match, str(error)
    return int(match[1]), int(match[2]), match[3]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_lies_in_the_range(folder, tmp_path, place, bit):
    """Anywhere in the file."""
    data = bytearray((folder / "a.kvq").read_bytes())
    at = int(place * len(data))
    data[at] ^= 1 << bit
    (tmp_path / "x.kvq").write_bytes(data)
    start, stop, _ = told(tmp_path / "x.kvq")
    assert start <= at < stop


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_cut_is_told(folder, tmp_path, place):
    """A file that ends early was cut off, and the range begins where it ends or before."""
    data = (folder / "a.kvq").read_bytes()
    size = 64 + int(place * (len(data) - 64))
    (tmp_path / "x.kvq").write_bytes(data[:size])
    start, _, words = told(tmp_path / "x.kvq")
    assert start <= size
    assert "cut off" in words


def test_a_cut_as_long_behind_a_chunk_as_a_footer(folder, tmp_path):
    """The bytes where a footer would be are those of another chunk: that is a cut, too."""
    data = (folder / "a.kvq").read_bytes()
    for at, _ in chunks(data)[1:]:
        (tmp_path / "x.kvq").write_bytes(data[: at + 128])
        start, _, words = told(tmp_path / "x.kvq")
        assert start <= at + 128
        assert "cut off" in words


def chunks(data):
    """Offset and length of each chunk, its padding included."""
    at = -(-(64 + int.from_bytes(data[20:24], "little")) // 64) * 64
    found = []
    while at + 128 < len(data):
        size = -(-(64 + int.from_bytes(data[at + 8 : at + 16], "little")) // 64) * 64
        found.append((at, size))
        at += size
    return found


def test_chunks_that_are_not_due(folder, tmp_path):
    """One that is left out, twice there, or another file's is told as what it is."""
    mine, other = ((folder / name).read_bytes() for name in ("a.kvq", "b.kvq"))
    (at, size), (following, _), *_ = chunks(mine)[2:]
    begin, length = chunks(other)[2]
    bent = {
        "left out": mine[:at] + mine[following:],
        "put in": mine[:following] + mine[at:],
        "another file's": mine[:at] + other[begin : begin + length] + mine[at + size :],
    }
    for word, data in bent.items():
        (tmp_path / "x.kvq").write_bytes(data)
        start, stop, words = told(tmp_path / "x.kvq")
        assert word in words
        assert start in (at, following)
        assert stop > start
        assert "layer" in words


def test_other_kinds_of_trouble(folder, tmp_path):
    """Line ends, versions and files of another kind have causes of their own."""
    data = (folder / "a.kvq").read_bytes()
    cases = {
        "sent as text": data.replace(b"\r\n", b"\n"),
        "a newer kvq": data[:8] + b"\2\0" + data[10:],
        "another kind of file": b"PK" + data[2:],
        "damage": data[:64] + b"x" + data[65:],
    }
    for word, bent in cases.items():
        (tmp_path / "x.kvq").write_bytes(bent)
        if word == "damage":
            assert "preamble and header" in told(tmp_path / "x.kvq")[2]
        else:
            assert word in told(tmp_path / "x.kvq")[2]


def test_on_the_command_line(folder, tmp_path):
    """The one line of the error says it; an intact file is verified as always."""
    data = bytearray((folder / "a.kvq").read_bytes())
    at, _ = chunks(data)[1]
    data[at + 70] ^= 1
    (tmp_path / "x.kvq").write_bytes(data)
    refused(kvq("verify", "--explain", tmp_path / "x.kvq"), 3, "E303", f"bytes {at} to", "key")
    done("verify", "--explain", folder / "a.kvq")
    refused(kvq("verify", "--explain", "-"), 2, "E101", "pipe")


def test_tensors_are_named(tmp_path):
    """A piece of a tensor that has no pages is told by the tensor's name."""
    (tmp_path / "a").write_bytes(
        per_layer_capture(tokens=(4,), spelling="layers.{layer}.{role}").replace(b"F16", b"I16", 1)
    )
    done("compress", tmp_path / "a", "-q")
    data = bytearray((tmp_path / "a.kvq").read_bytes())
    at, size = chunks(data)[1]
    data[at + size // 2 + 30] ^= 1
    (tmp_path / "x.kvq").write_bytes(data)
    assert 'tensor "layers.0.' in told(tmp_path / "x.kvq")[2]

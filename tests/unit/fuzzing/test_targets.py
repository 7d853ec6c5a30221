"""The fuzzing targets: what they must reach, and that each finds what it looks for."""

from __future__ import annotations

import json

import pytest

from fuzzing import corpus
from fuzzing.targets import capture, chunks, front, layout_map, profile
from kvq_cli import jsontext
from kvq_cli.container import chunk
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import CaptureError, DigestError, ProfileError
from kvq_cli.profile import Profile
from kvq_cli.steps import audited


@pytest.mark.parametrize("target", corpus.TARGETS)
def test_seeds_reach_both_ends(target):
    """Some are taken to the end; the layer's own refusals are there too."""
    outcomes = {corpus.module(target).run(data) for _, data in corpus.module(target).seeds()}
    assert outcomes & {"parsed", "bound"}
    assert len(outcomes) > 3


@pytest.mark.parametrize("target", corpus.TARGETS)
@pytest.mark.parametrize("data", [b"", b"\0", b"\xff", b"{", b"\0{}", b"\1{}", b"\xff" * 300])
def test_what_is_no_input_of_a_target_is_none(target, data):
    """Any bytes end as declared."""
    assert corpus.module(target).run(data)


@pytest.mark.parametrize("base", chunks.BASES, ids=lambda base: base.name)
@pytest.mark.parametrize("how", [0, chunks.PIPE, chunks.INDEX, chunks.STORED, chunks.ROWS])
def test_valid_chunks_are_read_in_every_way(base, how):
    """Forward, from a pipe, by the index, without pages, with rows."""
    number = chunks.BASES.index(base)
    assert chunks.run(bytes([number, how | chunks.RAW]) + base.chunks) == "parsed"


def altered(at):
    base = chunks.BASES[0]
    data = bytearray(base.chunks)
    data[at] ^= 1
    return bytes([0, chunks.RAW]) + data


def test_an_altered_container_that_passes_is_a_crash(monkeypatch):
    """Without the digests of chunks and roots, a changed byte of a page is found by the target."""
    at = chunks.BASES[0].chunks.index(b"PAGE") + 64 + 32 + 8 + 24  # of its one plane
    assert chunks.run(altered(at)) == "E303"
    monkeypatch.setattr(chunk, "check_payload", lambda *_: None)
    monkeypatch.setattr(audited.Audit, "finish", lambda *_, **__: None)
    monkeypatch.setattr(audited.Audit, "leaf", lambda *_: None)
    monkeypatch.setattr(audited.Audit, "root", lambda *_: None)
    monkeypatch.setattr(chunks.Comparison, "leaf", lambda *_: None)
    with pytest.raises(AssertionError, match="altered"):
        chunks.run(altered(at))


def test_a_manifest_that_is_written_otherwise_is_a_crash(monkeypatch):
    """What is read canonically is written as it was."""
    (data,) = (data for name, data in front.seeds() if name == "valid/raw")
    assert front.run(data) == "parsed"
    monkeypatch.setattr(Manifest, "to_bytes", lambda _: b"{}")
    with pytest.raises(AssertionError, match="written"):
        front.run(data)


def test_a_member_that_is_left_out_is_refused():
    """Where null is meant, null stands: a corpus line of the front."""
    (data,) = (data for name, data in front.seeds() if name == "valid/extras")
    value = json.loads(data[1:])
    del value["content"]["tensors"][0]["rows"]
    assert front.run(b"\2" + jsontext.canonical(value).encode()) == "E304"


def test_a_profile_with_another_digest_is_a_crash(monkeypatch):
    """The normal form has the digest of what it was read from."""
    data = b"\0" + json.dumps({"schema": "kvq_profile_v1", "name": "a", "rules": []}).encode()
    assert profile.run(data) == "parsed"
    digests = iter("ab")
    monkeypatch.setattr(Profile, "digest", lambda _: next(digests))
    with pytest.raises(AssertionError, match="digest"):
        profile.run(data)


def test_a_tensor_that_is_lost_is_a_crash(monkeypatch):
    """What no layout takes is carried along."""
    (data,) = (data for name, data in capture.seeds() if name == "layout 9, 0")
    assert capture.run(data) == "parsed"
    found = capture.recognised

    def short(files, layout):
        files.tensors = files.tensors[:-1]
        name, each = found(files, layout)
        files.tensors = (*files.tensors, files.tensors[0], files.tensors[0])
        return name, each

    monkeypatch.setattr(capture, "recognised", short)
    with pytest.raises(AssertionError, match="lost"):
        capture.run(data)


@pytest.mark.parametrize(
    ("target", "holder", "name", "error"),
    [
        (front, front, "container_codecs", ProfileError("E401", "undeclared")),
        (chunks, chunks, "read_all", CaptureError("E201", "undeclared")),
        (capture, jsontext, "loads", DigestError("undeclared")),
        (profile, jsontext, "loads", CaptureError("E201", "undeclared")),
        (layout_map, jsontext, "loads", RecursionError()),
    ],
)
def test_what_a_layer_does_not_declare_is_a_crash(monkeypatch, target, holder, name, error):
    """Errors of other layers, and Python's own, are not caught."""
    data = next(data for _, data in target.seeds() if target.run(data) in {"parsed", "bound"})

    def raising(*_, **__):
        raise error

    monkeypatch.setattr(holder, name, raising)
    with pytest.raises(type(error)):
        target.run(data)

"""gatekeeper: the official parser sees the header, and its word counts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from kvq_cli.capture import gatekeeper
from kvq_cli.capture.header import Tensor, parse_header
from kvq_cli.errors import CaptureError, FileError
from support.captures import canonical_capture, raw_safetensors

FILE = canonical_capture(metadata={"model": "m"})
HEADER = parse_header(FILE, len(FILE))


def test_refusal_of_the_official_parser_counts() -> None:
    """What the official parser refuses is refused, and the message is printable."""
    raw = raw_safetensors('{"a\\u001b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}')
    with pytest.raises(CaptureError) as refusal:
        gatekeeper.check(dataclasses.replace(HEADER, raw=raw, file_size=len(raw) + 6))
    assert refusal.value.error_id == "E201"
    assert str(refusal.value).isprintable()


@pytest.mark.parametrize(
    "change",
    [
        {"tensors": HEADER.tensors[1:]},
        {"tensors": (*HEADER.tensors, Tensor("x", "U8", (0,), 0, 0))},
        {"tensors": tuple(dataclasses.replace(t, dtype="BF16") for t in HEADER.tensors)},
        {"tensors": tuple(dataclasses.replace(t, shape=(40, 8)) for t in HEADER.tensors)},
        {"tensors": tuple(dataclasses.replace(t, name=t.name + "_") for t in HEADER.tensors)},
        {"metadata": {}},
        {"metadata": {"model": "n"}},
    ],
)
def test_disagreement_is_refused(change: dict) -> None:
    """A header that the two parsers read differently is refused."""
    gatekeeper.check(HEADER)
    with pytest.raises(CaptureError) as refusal:
        gatekeeper.check(dataclasses.replace(HEADER, **change))
    assert refusal.value.error_id == "E201"


def test_terabyte_needs_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A header of a huge file is checked through a sparse file that is gone afterwards."""
    size = 1 << 40
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    raw = raw_safetensors(json.dumps({"a": entry}))
    monkeypatch.setenv("KVQ_TMPDIR", str(tmp_path))
    gatekeeper.check(parse_header(raw, len(raw) + size))
    assert list(tmp_path.iterdir()) == []


def test_temporary_directory_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary directory that does not exist is a FileError."""
    monkeypatch.setenv("KVQ_TMPDIR", str(tmp_path / "none"))
    with pytest.raises(FileError) as refusal:
        gatekeeper.check(HEADER)
    assert refusal.value.error_id == "E601"


def test_the_file_that_is_shown_has_no_name(tmp_path: Path, monkeypatch) -> None:
    """Nobody has to remove it, however the process ends."""
    monkeypatch.setenv("KVQ_TMPDIR", str(tmp_path))
    original, seen = gatekeeper.safe_open, []

    def watched(*arguments, **options):
        seen.append(list(tmp_path.iterdir()))
        return original(*arguments, **options)

    monkeypatch.setattr(gatekeeper, "safe_open", watched)
    gatekeeper.check(HEADER)
    assert seen == [[]]


def test_no_temporary_directory_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty KVQ_TMPDIR is as none: it does not name the folder that one works in."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setenv("KVQ_TMPDIR", "")
    gatekeeper.check(HEADER)

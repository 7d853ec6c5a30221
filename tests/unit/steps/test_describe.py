"""describe: what a file is, from its first bytes."""

from __future__ import annotations

import os

import pytest

from kvq_cli.errors import FileError
from kvq_cli.steps.describe import kind_of


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89KVQ\r\n\x1a\n", "container"),
        (b"\x89KVQ\n\x1a\n", "container"),  # damaged, and still one
        (b'{"schema"', "profile"),
        (b'  \r\n\t{"schema"', "profile"),
        (b"{", "profile"),
        (b"\x40\0\0\0\0\0\0\0{", "capture"),
        (b"\x7b\0\0\0\0\0\0\0{", "capture"),
        (b"\x20\x7b\0\0\0\0\0\0{", "capture"),
        (b"\x20\x20\x7b\0\0\0\0\0{", "capture"),
        (b"", "capture"),
        (b"\x89KV", "capture"),
    ],
)
def test_kinds(start, kind, tmp_path):
    """Magic is a container, a brace of text a profile, all else a capture."""
    path = tmp_path / "file"
    path.write_bytes(start)
    assert kind_of(path) == kind


def test_what_cannot_be_peeked_at(tmp_path):
    """A pipe would lose its first bytes, and a missing file has none; a folder is a capture."""
    os.mkfifo(tmp_path / "fifo")
    assert kind_of(tmp_path) == kind_of(tmp_path / "kv.index.json") == "capture"
    for name in ("fifo", "missing"):
        with pytest.raises(FileError) as caught:
            kind_of(tmp_path / name)
        assert caught.value.error_id == "E601"

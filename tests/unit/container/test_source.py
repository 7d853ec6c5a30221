"""source: a container's file is opened and closed once, whatever happens."""

from __future__ import annotations

import os

import pytest

from kvq_cli.container.source import ByteSource
from kvq_cli.errors import FileError


def refuse(*_, **__):
    raise OSError(5, "Input/output error")


def test_closed_once(tmp_path):
    """A number that was given back may be another file's: it is not closed again."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    source = ByteSource.open(path)
    source.close()
    other = os.open(path, os.O_RDONLY)
    source.close()
    os.fstat(other)
    os.close(other)


def test_nothing_stays_open(tmp_path, monkeypatch):
    """A file of which the system tells nothing is refused, and closed."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    before = os.listdir("/proc/self/fd")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", refuse)
        with pytest.raises(FileError) as caught:
            ByteSource.open(path)
    assert caught.value.error_id == "E601"
    assert os.listdir("/proc/self/fd") == before

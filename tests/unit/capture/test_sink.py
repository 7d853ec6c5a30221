"""sink: what is changed by reading it first is read whole."""

from __future__ import annotations

import os

from kvq_cli.capture.sink import Sink


def test_a_system_that_reads_little_at_a_time(tmp_path, monkeypatch):
    """Bytes that come one by one are all there; those behind the end are zeros."""
    original = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: original(fd, [views[0][:1]], at))
    with (tmp_path / "file").open("w+b", buffering=0) as file:
        file.write(b"abcdef")
        with Sink([file.fileno()]).changed(1, 8) as data:
            assert bytes(data) == b"bcdef\0\0\0"
            data[1] = ord("X")
    assert (tmp_path / "file").read_bytes() == b"abXdef\0\0\0"

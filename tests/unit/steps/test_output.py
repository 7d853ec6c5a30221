"""output: a file that appears complete or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvq_cli.errors import FileError
from kvq_cli.steps import output as steps
from kvq_cli.steps.output import copy_to, open_output, spool


def test_complete(tmp_path):
    """What was written is there after the block, and not before."""
    target = tmp_path / "out"
    with open_output(target, force=False) as output:
        output.write(b"one")
        output.write(memoryview(b"two"))
        assert not target.exists()
        assert [each.name for each in tmp_path.iterdir()] != []
    assert target.read_bytes() == b"onetwo"
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
def test_absent(error, tmp_path):
    """Whatever ends the block early, nothing stays."""

    def fail():
        with open_output(tmp_path / "out", force=False) as output:
            output.write(b"half")
            raise error

    with pytest.raises((error, FileError)):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_short_writes(tmp_path, monkeypatch):
    """A system that takes a few bytes at a time still gets all of them."""
    original = os.write
    monkeypatch.setattr(os, "write", lambda fd, view: original(fd, view[:3]))
    with open_output(tmp_path / "out", force=False) as output:
        output.write(bytes(range(100)))
    assert (tmp_path / "out").read_bytes() == bytes(range(100))


def test_a_dangling_link_is_an_output_that_exists(tmp_path):
    """Without force it is refused; with force the file it names appears."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real")
    with pytest.raises(FileError) as caught, open_output(link, force=False):
        pass
    assert caught.value.error_id == "E103"
    with open_output(link, force=True) as output:
        output.write(b"x")
    assert (tmp_path / "real").read_bytes() == b"x"
    assert link.is_symlink()


def test_a_link_to_itself(tmp_path):
    """A loop of links names no file: it is an output that exists, and force replaces it."""
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    with pytest.raises(FileError) as caught, open_output(loop, force=False):
        pass
    assert caught.value.error_id == "E103"
    with open_output(loop, force=True) as output:
        output.write(b"x")
    assert loop.read_bytes() == b"x"


def test_spool_has_no_name(tmp_path, monkeypatch):
    """A spool lies in KVQ_TMPDIR, cannot be seen there, and is copied whole."""
    monkeypatch.setenv("KVQ_TMPDIR", str(tmp_path))
    with spool() as fd, open_output(tmp_path / "out", force=False) as output:
        os.write(fd, b"spooled")
        assert [each for each in tmp_path.iterdir() if not each.name.startswith(".kvq-")] == []
        copy_to(fd, output)
    assert (tmp_path / "out").read_bytes() == b"spooled"


def test_a_spool_that_cannot_be(monkeypatch, tmp_path):
    """A KVQ_TMPDIR that is not there is said by the system's own error."""
    monkeypatch.setenv("KVQ_TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="missing"), spool():
        pass
    assert Path(tmp_path / "missing").exists() is False


def test_writing_begins_before_the_end(monkeypatch, tmp_path):
    """The disk is told each time that FLUSH bytes came to a file that will be synced."""
    told = []

    def begin(fd):
        told.append(os.fstat(fd).st_size)

    monkeypatch.setattr(steps, "FLUSH", 10)
    monkeypatch.setattr(steps, "_begin_writing", begin)
    with open_output(tmp_path / "file", force=False) as file:
        for piece in (b"1234", b"567890ab", b"c", b"defghijkl"):
            file.write(piece)
    assert told == [12, 22]
    assert (tmp_path / "file").read_bytes() == b"1234567890abcdefghijkl"


def test_the_system_takes_the_hint(tmp_path):
    """On this system the call that begins writing is there and does no harm."""
    with open_output(tmp_path / "file", force=False) as file:
        file.write(b"x" * 5000)
        steps._begin_writing(file.fd)
    assert (tmp_path / "file").stat().st_size == 5000

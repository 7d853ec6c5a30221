"""source: reads exactly, notices change, and says why a file cannot be opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError, FileError
from support.captures import canonical_capture

FILE = canonical_capture()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    path.write_bytes(FILE)
    return path


def test_reads_at_any_offset(path: Path) -> None:
    """A read fills the buffer with the bytes at the offset."""
    with Source(path) as source:
        for offset, size in ((0, len(FILE)), (7, 33), (len(FILE), 0), (len(FILE) - 1, 1)):
            buffer = bytearray(size)
            source.read_into(offset, buffer)
            assert buffer == FILE[offset : offset + size]
        source.check_unchanged()
        assert source.path == str(path)


def test_short_reads_are_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that the kernel cuts short goes on where it stopped."""
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: whole(fd, [views[0][:3]], at))
    buffer = bytearray(len(FILE))
    with Source(path) as source:
        source.read_into(0, buffer)
    assert buffer == FILE


def test_descriptor(path: Path) -> None:
    """An open descriptor is copied: its owner keeps it and its position."""
    with path.open("rb") as file:
        file.seek(5)
        with Source(file.fileno()) as source:
            assert source.path == "-"
            assert len(source.header.tensors) == 2
        assert file.read(1) == FILE[5:6]


def test_truncated_while_open(path: Path) -> None:
    """A file that got shorter is refused by the read and by the check."""
    with Source(path) as source:
        os.truncate(path, len(FILE) - 1)
        for use in (lambda: source.read_into(0, bytearray(len(FILE))), source.check_unchanged):
            with pytest.raises(CaptureError) as refusal:
                use()
            assert refusal.value.error_id == "E205"


def test_changed_while_open(path: Path) -> None:
    """A file that was written to is refused by the check, though its size is the same."""
    with Source(path) as source:
        os.utime(path, ns=(1, 1))
        with pytest.raises(CaptureError) as refusal:
            source.check_unchanged()
    assert refusal.value.error_id == "E205"


def test_replaced_while_open(path: Path) -> None:
    """Another file under the same name does not matter: the opened one is still whole."""
    with Source(path) as source:
        path.unlink()
        path.write_bytes(b"another")
        source.check_unchanged()


def test_cannot_be_opened(tmp_path: Path, path: Path) -> None:
    """Missing files, directories and pipes are FileErrors that name the file, not hangs."""
    os.mkfifo(tmp_path / "pipe")
    for name in ("none", ".", "pipe", "a.safetensors/x"):
        with pytest.raises(FileError) as refusal:
            Source(tmp_path / name)
        assert refusal.value.error_id == "E601"
        assert str(refusal.value).startswith(str(tmp_path))


def test_no_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without read permission is a FileError that says so."""

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError) as refusal:
        Source(path)
    assert "permission denied" in str(refusal.value)


def test_read_fails(path: Path) -> None:
    """A read that the operating system refuses is a FileError."""
    source = Source(path)
    source.close()
    for use in (lambda: source.read_into(0, bytearray(1)), source.check_unchanged):
        with pytest.raises(FileError) as refusal:
            use()
        assert refusal.value.error_id == "E601"


def test_nothing_leaks(tmp_path: Path) -> None:
    """A refused file leaves no descriptor open: the next one gets the same number."""
    (tmp_path / "bad").write_bytes(b"not a capture at all")
    before = os.dup(0)
    os.close(before)
    for name in ("bad", ".", "none"):
        with pytest.raises((CaptureError, FileError)):
            Source(tmp_path / name)
    after = os.dup(0)
    os.close(after)
    assert before == after

"""source: bytes by offset from a file, and once in order from a pipe."""

from __future__ import annotations

import os

import pytest

from kvq_cli.container import source
from kvq_cli.container.source import ByteSource, Forward
from kvq_cli.errors import ContainerError, FileError

DATA = bytes(at % 251 for at in range(1000))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    return tmp_path / "data"


@pytest.fixture
def pipe():
    """A pipe with DATA in it, closed behind."""
    reader, writer = os.pipe()
    os.write(writer, DATA)
    os.close(writer)
    yield reader
    os.close(reader)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0),
        (0, 1),
        (0, 1000),
        (999, 1),
        (10, 20),
        (0, 1001),
        (999, 2),
        (1000, 1),
        (5000, 1),
        (0, 1 << 62),
        (1 << 63, 1 << 63),
        (10, -1),
    ],
)
def test_bytes_of_a_file(path, offset, length):
    """What is there of them; nothing is allocated that the file cannot hold."""
    with ByteSource.open(path) as opened:
        assert (opened.seekable, opened.size, opened.name) == (True, 1000, str(path))
        assert opened.read(offset, length) == DATA[offset:][: max(length, 0)]


@pytest.mark.parametrize("piece", [1, 7])
def test_a_system_that_reads_piece_by_piece(path, monkeypatch, piece):
    """Short reads are put together; a file that was cut off meanwhile gives what it has."""
    true = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, at: true(fd, min(length, piece), at))
    with ByteSource.open(path) as opened:
        assert opened.read(3, 500) == DATA[3:503]
        os.truncate(path, 100)
        assert opened.read(90, 500) == DATA[90:100]
        assert opened.read(100, 500) == b""


def test_a_file_that_is_not_there(tmp_path):
    """E601, when it is opened; and where the system refuses to read."""
    with pytest.raises(FileError) as refusal:
        ByteSource.open(tmp_path / "none")
    assert refusal.value.error_id == "E601"
    with ByteSource.open(tmp_path) as folder, pytest.raises(FileError) as refusal:
        folder.read(0, 1)
    assert refusal.value.error_id == "E601"


def test_whose_it_is_to_close(path):
    """A source closes what it opened, and nothing that it was given."""
    fd = os.open(path, os.O_RDONLY)
    with ByteSource(fd, "given", owned=False):
        pass
    os.fstat(fd)
    with ByteSource(fd, "taken", owned=True):
        pass
    with pytest.raises(OSError):
        os.fstat(fd)
    with ByteSource.open(path) as opened:
        assert not os.get_inheritable(opened._fd)
    with pytest.raises(OSError):
        os.fstat(opened._fd)


def test_bytes_of_a_pipe(pipe):
    """Once, in order; fewer only at the end."""
    opened = ByteSource(pipe, "-", owned=False)
    assert (opened.seekable, opened.size) == (False, None)
    assert opened.read(0, 10) == DATA[:10]
    assert opened.read(10, 0) == b""
    assert opened.read(10, 500) == DATA[10:510]
    for offset in (0, 509, 511):
        with pytest.raises(ContainerError) as refusal:
            opened.read(offset, 1)
        assert (refusal.value.error_id, refusal.value.offset) == ("E304", offset)
    assert opened.read(510, 1 << 40) == DATA[510:]
    assert opened.read(1000, 1) == b""


def test_a_pipe_is_asked_for_pieces(pipe, monkeypatch):
    """Of a MiB at most, until all that was asked for is there."""
    asked = []

    def read(_, length):
        asked.append(length)
        return bytes(min(length, source.PIECE))

    opened = ByteSource(pipe, "-", owned=False)
    monkeypatch.setattr(os, "read", read)
    whole = opened.read(0, (5 << 19) + 3)
    assert len(whole) == (5 << 19) + 3
    assert asked == [1 << 20, 1 << 20, (1 << 19) + 3]


@pytest.mark.parametrize("piece", [1, 7, 64, 4096])
@pytest.mark.parametrize("seekable", [True, False])
def test_forward(path, pipe, monkeypatch, piece, seekable):
    """Pieces of any size give the bytes that were asked for, gaps left out, from any start."""
    monkeypatch.setattr(source, "PIECE", piece)
    for begin in (0, 100):
        opened = ByteSource.open(path) if seekable else ByteSource(pipe, "-", owned=False)
        if not seekable and begin:
            continue
        with opened:
            forward = Forward(opened, begin)
            places = [(0, 5), (5, 64), (69, 0), (69, 1), (70, 300), (370, 600), (970, 100)]
            for at, length in places:
                taken = forward.take(begin + at, length)
                assert bytes(taken) == DATA[begin + at :][:length]
            assert bytes(forward.take(1000, 1)) == b""


def test_forward_reads_a_piece_at_a_time(path):
    """A MiB at once, or more where more is asked for; what is there is not read again."""
    with ByteSource.open(path) as opened:
        asked = []
        true = opened.read
        opened.read = lambda at, length: asked.append((at, length)) or true(at, length)
        forward = Forward(opened, 10)
        forward.take(10, 20)
        forward.take(30, 40)
        forward.take(980, 10)
        forward.take(990, 2 << 20)
        assert asked == [(10, 1 << 20), (1000, (2 << 20) - 10)]

"""tracing: what is said to happen to a call happens, and a careless writer is found out."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from support.tracing import POSSIBLE, Cut, Refuse, Signal, traced

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="calls are traced on Linux x86-64 only")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file"


def writer(path, call=os.write, data=b"0123456789"):
    """What a careless program does; its exit code is the system's error."""

    def body():
        try:
            fd = os.open(path, os.O_CREAT | os.O_WRONLY)
            call(fd, data)
            os.close(fd)
        except OSError as error:
            os._exit(error.errno)
        os._exit(0)

    return body


def test_calls_are_counted(path):
    """Each call, with its file, and the exit code."""
    found = traced(writer(path))
    assert [name for name, _ in found.calls] == ["openat", "write", "close"]
    assert (found.code, found.hit, found.left_open) == (0, False, False)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_refused(number, path):
    """The call is not made, and what stays open is noticed."""
    found = traced(writer(path), 1, Refuse(number))
    assert (found.hit, found.left_open) == (True, True)
    assert path.read_bytes() == b""
    assert traced(writer(path), 1, Refuse(number, late=True)).left_open
    assert path.read_bytes() == b"0123456789"
    assert traced(writer(path), 2, Refuse(number)).code == number


def test_interrupted(path):
    """Python makes the call again."""
    found = traced(writer(path), 1, Refuse(errno.EINTR))
    assert [name for name, _ in found.calls] == ["openat", "write", "write", "close"]
    assert (found.code, path.read_bytes()) == (0, b"0123456789")


@pytest.mark.parametrize(
    ("call", "data"),
    [
        (os.write, b"0123456789"),
        (os.writev, [b"0123", b"456789"]),
        (os.writev, [b"012345678", b"9"]),
    ],
)
def test_cut(call, data, path):
    """Half of it is written, and the program's memory is as it was."""
    found = traced(writer(path, call, data), 1, Cut())
    assert (found.code, found.hit, path.read_bytes()) == (0, True, b"01234")


def test_killed(path):
    """Before the call, or behind it."""
    for late, left in ((False, b""), (True, b"0123456789")):
        found = traced(writer(path), 1, Signal(signal.SIGKILL, late=late))
        assert (found.code, found.hit, path.read_bytes()) == (None, True, left)
        path.unlink()

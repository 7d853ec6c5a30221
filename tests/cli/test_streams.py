"""Standard input, standard output, broken pipes, terminals and signals."""

from __future__ import annotations

import array
import contextlib
import fcntl
import io
import itertools
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest

from kvq_cli.cli import render
from kvq_cli.cli.run import run
from support.captures import canonical_capture
from support.shell import COMMAND, Ran, done, environment, listing, process, refused


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "cache.safetensors"
    path.write_bytes(canonical_capture(tokens=60, channels=16))
    return path


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_a_pipe_gets_the_bytes_of_a_file(profile, capture):
    """cat x | kvq compress - -o - writes what kvq compress x writes, and nothing else."""
    done("compress", capture, "-p", profile)
    data = capture.with_name(f"{capture.name}.kvq").read_bytes()
    ran = process("compress", "-", "-o", "-", "-p", profile, stdin=capture.read_bytes())
    assert (ran.code, ran.out) == (0, data)
    assert process("compress", "-", "-p", profile, stdin=capture.read_bytes()).out == data
    with capture.open("rb") as file:
        assert process("compress", "-", "-p", profile, stdin=file).out == data


def test_decompress_from_pipe_to_pipe(capture):
    """The original file, byte for byte; a slice, too."""
    done("compress", capture)
    data = capture.with_name(f"{capture.name}.kvq").read_bytes()
    ran = process("decompress", "-", stdin=data)
    assert (ran.code, ran.out) == (0, capture.read_bytes())
    done("decompress", f"{capture}.kvq", "--tokens", "3:7", "-o", capture.with_name("part"))
    ran = process("decompress", "-", "--tokens", "3:7", "-o", "-", stdin=data)
    assert (ran.code, ran.out) == (0, capture.with_name("part").read_bytes())


def test_verify_and_stats_from_a_pipe(capture):
    """A forward reader finds what a file reader finds."""
    done("compress", capture)
    data = capture.with_name(f"{capture.name}.kvq").read_bytes()
    assert process("verify", "-", stdin=data).out.startswith(b"-: ok blake3:")
    assert process("verify", "--quick", "-", stdin=data).code == 0
    assert process("stats", "-", "--json", stdin=data).code == 0
    refused(process("inspect", "-", stdin=data), 2, "E101", "verify -")


def test_damage_in_a_pipe(capture):
    """A truncated or damaged stream is refused, and nothing reaches standard output."""
    done("compress", capture)
    data = capture.with_name(f"{capture.name}.kvq").read_bytes()
    for bad in (data[: len(data) // 2], data[:-1], data + b"\0", data[:3000] + b"!" + data[3001:]):
        for command in ("verify", "decompress"):
            ran = process(command, "-", stdin=bad)
            assert (ran.code, ran.out) == (3, b"")
            assert ran.err.count("\n") == 1
    refused(process("compress", "-", stdin=capture.read_bytes()[:-1]), 3, "E201", "standard input")


def test_a_named_pipe_as_container(capture):
    """A container may come through a named pipe, as in kvq verify <(command)."""
    done("compress", capture)
    fifo = capture.with_name("fifo")
    os.mkfifo(fifo)
    feeder = subprocess.Popen(f"cat '{capture}.kvq' > '{fifo}'", shell=True)  # noqa: S602
    assert process("verify", fifo).code == 0
    feeder.wait()
    refused(process("inspect", fifo), 6, "E601", "not a regular file")
    refused(process("compress", fifo), 6, "E601", "not a regular file")


@pytest.mark.parametrize(
    "command", [["compress"], ["inspect", "--json", "--tensors"], ["profile", "schema"]]
)
def test_a_broken_pipe(command, tmp_path):
    """A reader that goes away is exit code 141 and no word."""
    path = tmp_path / "big.safetensors"
    path.write_bytes(canonical_capture(layers=2, heads=4, tokens=2048, channels=64))
    rest = ["-o", "-", "-q"] if command == ["compress"] else []
    reading, writing = os.pipe()
    os.close(reading)
    arguments = [*command, *([] if command[0] == "profile" else [path]), *rest]
    child = subprocess.Popen(
        [*COMMAND, *map(str, arguments)], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (141, b"")


def wait_for(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("nothing happened for 30 seconds")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_signals(command, number, capture):
    """Interrupted or terminated: exit code 130, one line, no output, no temporary file."""
    done("compress", capture)
    data = capture.with_name(f"{capture.name}.kvq").read_bytes()
    data = data if command == "decompress" else capture.read_bytes()
    before = listing(capture.parent)
    # Half of its input came: the child waits for the rest in the middle of its story.
    child = subprocess.Popen(
        [*COMMAND, command, "-", "-o", str(capture.with_name("out"))],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(KVQ_TMPDIR=str(capture.parent)),
        # A suite that a shell runs in the background inherits that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    assert child.stdin
    assert child.stderr
    child.stdin.write(data[: len(data) // 2])
    child.stdin.flush()
    left = array.array("i", [1])

    def consumed():
        fcntl.ioctl(child.stdin, termios.FIONREAD, left)
        return left[0] == 0

    wait_for(consumed)
    child.send_signal(number)
    try:
        child.wait(timeout=5)
    except subprocess.TimeoutExpired:
        # It came just before a read began that waits for more: a user asks again, too.
        child.send_signal(number)
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=30) == 130
    child.stdin.close()
    assert err == b"kvq: interrupted\n"
    assert listing(capture.parent) == before


def test_an_interrupt_when_all_was_said(tmp_path):
    """Also before the first line and behind the last one: exit code 130, and no traceback."""
    for name in ("answer", "_hold_streams"):
        program = f"""
import kvq_cli.__main__ as kvq
def interrupted():
    raise KeyboardInterrupt
kvq.{name} = interrupted
kvq.main()
"""
        line = [sys.executable, "-c", program]
        ran = subprocess.run(line, capture_output=True, check=False, timeout=60)
        assert (ran.returncode, ran.stderr) == (130, b""), name


def test_an_interrupt_while_writing(tmp_path, monkeypatch):
    """A temporary file that is being written goes when the user interrupts."""
    from kvq_cli.steps.output import Output

    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())

    def interrupted(self, *buffers):
        raise KeyboardInterrupt

    monkeypatch.setattr(Output, "write", interrupted)
    from support.shell import kvq

    ran = kvq("compress", path)
    assert (ran.code, ran.err) == (130, "kvq: interrupted\n")
    assert [each.name for each in tmp_path.iterdir()] == ["cache"]


def on_terminal(*arguments: object, stdin: bytes = b"", **env: str) -> Ran:
    """A command whose standard output is a terminal."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env=environment(**env),
    )
    os.close(theirs)
    assert child.stdin
    child.stdin.write(stdin)
    child.stdin.close()
    out = b""
    try:
        while piece := os.read(ours, 1 << 16):
            out += piece
    except OSError:
        pass
    assert child.stderr
    err = child.stderr.read().decode()
    child.stderr.close()
    os.close(ours)
    return Ran(child.wait(timeout=60), out, err)


def test_binary_to_a_terminal(capture):
    """E105 without --force, for both directions; nothing is written."""
    refused(on_terminal("compress", capture, "-o", "-"), 5, "E105")
    refused(on_terminal("compress", "-", stdin=capture.read_bytes()), 5, "E105")
    refused(on_terminal("compress", capture, "-o", "/dev/stdout"), 5, "E105")
    done("compress", capture)
    refused(on_terminal("decompress", f"{capture}.kvq", "-o", "-"), 5, "E105")
    assert on_terminal("compress", capture, "-o", "-", "--force").out.startswith(b"\x89KVQ")


def test_colour(capture):
    """Rich draws on a terminal; NO_COLOR, TERM=dumb and --color never do not; always does."""
    done("compress", capture)
    table = ["inspect", f"{capture}.kvq", "--pages"]
    assert b"\x1b[" in on_terminal(*table, TERM="xterm").out
    assert b"\x1b" not in on_terminal(*table, TERM="xterm", NO_COLOR="1").out
    assert b"\x1b" not in on_terminal(*table, TERM="dumb").out
    assert b"\x1b" not in on_terminal(*table, "--color", "never", TERM="xterm").out
    assert b"\x1b" not in process(*table).out
    assert b"\x1b[" in process(*table, "--color", "always").out


class Screen(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self):
        return True


def test_progress_on_a_terminal(capture, monkeypatch):
    """A bar appears where a person may see it, shows its end, and leaves no trace on its line."""
    monkeypatch.setattr(render, "PATIENCE", 0)
    clock = itertools.count()
    monkeypatch.setattr(render.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setenv("TERM", "xterm")
    done("compress", capture)
    for arguments, shown in (
        (["compress", capture, "-f"], True),
        (["verify", f"{capture}.kvq"], True),
        (["compress", capture, "-f", "--no-progress"], False),
        (["verify", f"{capture}.kvq", "-q"], False),
    ):
        screen = Screen()
        with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(io.StringIO()):
            assert run([str(each) for each in arguments]) == 0
        text = screen.getvalue()
        assert (" MB/s" in text) == shown
        assert ("100 %" in text) == (shown and arguments[0] == "compress")
        if shown:
            assert text.rindex("\r\x1b[K") > text.rindex("MB/s")


def test_closed_streams(capture):
    """A stream that the caller closed is neither a file nor another stream."""
    done("compress", capture)
    before = listing(capture.parent)
    command = " ".join([*COMMAND, "{}", f"'{capture}.kvq'"])

    def shell(text):
        return subprocess.run(text, shell=True, capture_output=True, check=False)  # noqa: S602

    ran = shell(f"{command.format('decompress -v -o -')} 2>&-")
    assert (ran.returncode, ran.stdout) == (0, capture.read_bytes())
    ran = shell(f"{command.format('decompress -o -')} >&-")
    assert (ran.returncode, ran.stderr.count(b"\n")) == (6, 1)
    assert shell(f"{command.format('verify')} <&- >&- 2>&-").returncode == 0
    ran = shell(f"{command.format('verify --max-bytes 1')} 2>&-")
    assert (ran.returncode, ran.stdout) == (1, b"")
    assert listing(capture.parent) == before


def test_both_streams_broken(capture):
    """Nobody left to tell: exit code 141."""
    reading, writing = os.pipe()
    os.close(reading)
    child = subprocess.Popen(
        [*COMMAND, "inspect", str(capture), "missing"], stdout=writing, stderr=writing
    )
    os.close(writing)
    assert child.wait(timeout=60) == 141


def test_an_ascii_locale_is_no_bug(tmp_path):
    """A name that standard output cannot encode is escaped, not a traceback."""
    path = tmp_path / "кэш.safetensors"
    path.write_bytes(canonical_capture())
    ran = process("inspect", path, env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C.UTF-8"})
    assert ran.code == 0, ran.err
    assert b"\\u043a" in ran.out

"""Inputs that change while they are read, two writers to one name, readers that leave early."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import time
from functools import partial

import pytest

from kvq_cli.capture import folder as folders
from kvq_cli.steps import renaming, temporary
from support.captures import canonical_capture, vllm_files, write_folder
from support.forked import ended, start
from support.shell import done, kvq, left_alone, listing, refused

RECIPE = {"tokens": 300, "channels": 16}


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture(**RECIPE))
    return path


@pytest.fixture
def container(capture):
    done("compress", capture)
    return capture.with_name("cache.kvq")


def shrink(path):
    os.truncate(path, path.stat().st_size - 1)


def halve(path):
    os.truncate(path, path.stat().st_size // 2)


def grow(path):
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    with path.open("r+b") as file:
        file.write(data)
    os.utime(path, ns=(1, 1))


def supplant(path):
    other = path.with_name("other")
    other.write_bytes(b"another file")
    other.rename(path)


def meanwhile(monkeypatch, name, path, change, at):
    """Change a file just before the at-th time that it is read."""
    original, calls = getattr(os, name), []

    def reading(*arguments):
        calls.append(arguments)
        if len(calls) == at:
            change(path)
        return original(*arguments)

    monkeypatch.setattr(os, name, reading)
    return calls


@pytest.mark.parametrize("at", [2, 3, 4, 6])
@pytest.mark.parametrize("change", [shrink, halve, grow, rewrite])
def test_a_capture_that_changes(change, at, capture, monkeypatch):
    """Whenever it shrinks, grows or is written to, it is refused, and nothing is written."""
    calls = meanwhile(monkeypatch, "preadv", capture, change, at)
    ran = kvq("compress", capture, "-T1")
    assert len(calls) >= at
    refused(ran, 3, "E201" if ran.err.count("E201") else "E205")
    assert os.listdir(capture.parent) == ["cache"]


def test_a_capture_that_is_replaced(capture, monkeypatch):
    """Another file of its name is another file: what was opened is compressed."""
    before = capture.read_bytes()
    meanwhile(monkeypatch, "preadv", capture, supplant, 4)
    done("compress", capture, "-T1")
    monkeypatch.undo()
    done("decompress", f"{capture}.kvq", "-f")
    assert capture.read_bytes() == before


@pytest.mark.parametrize("change", [shrink, grow, rewrite])
def test_a_file_of_a_folder_that_changes(change, tmp_path, monkeypatch):
    """The same for each file of a folder."""
    source = write_folder(tmp_path / "dump", vllm_files())
    last = max(source.iterdir())
    meanwhile(monkeypatch, "preadv", last, change, 6)
    refused(kvq("compress", source, "--layout", "vllm", "-T1"), 3, "E205")
    assert os.listdir(tmp_path) == ["dump"]


def test_a_folder_that_is_replaced(tmp_path, monkeypatch):
    """Files of two folders that had one name, one after the other, are no capture."""
    source = write_folder(tmp_path / "dump", vllm_files())
    other = write_folder(tmp_path / "other", vllm_files(dtype="F16"))
    original = folders.Source

    def opened(*arguments):
        if other.exists():
            source.rename(tmp_path / "old")
            other.rename(source)
        return original(*arguments)

    monkeypatch.setattr(folders, "Source", opened)
    refused(kvq("inspect", source), 3, "E205")


@pytest.mark.parametrize("command", ["verify", "decompress", "stats"])
@pytest.mark.parametrize(
    ("change", "ids"),
    [(shrink, ["E302"]), (halve, ["E302"]), (rewrite, ["E303", "E304", "E301"]), (grow, ["E304"])],
)
def test_a_container_that_changes(command, change, ids, container, monkeypatch):
    """What is read is what was written, or it is refused; nothing is restored from it."""
    calls = meanwhile(monkeypatch, "pread", container, change, 5)
    with contextlib.suppress(FileNotFoundError):
        container.with_name("cache").unlink()
    ran = kvq(command, container, "-T1")
    assert len(calls) >= 5
    if ran.code:  # bytes behind the end that it had when it was opened are nobody's
        assert ran.code == 3
        assert any(each in ran.err for each in ids), ran.err
        assert sorted(os.listdir(container.parent)) == ["cache.kvq"]
    else:
        assert change is grow


def test_a_container_that_is_replaced(container, monkeypatch):
    """What was opened is restored."""
    before = container.with_name("cache").read_bytes()
    meanwhile(monkeypatch, "pread", container, supplant, 5)
    done("decompress", container, "-f", "-T1")
    assert container.with_name("cache").read_bytes() == before


ROUNDS = 6


def race(lines, folder, before=lambda: None):
    """Commands begun together, again and again: their exit codes, and what is there then."""
    for _ in range(ROUNDS):
        before()
        gate, opening = os.pipe()
        running = [start(*line, first=partial(os.read, gate, 1)) for line in lines]
        os.write(opening, b"go" * len(lines))
        codes = sorted(map(ended, running))
        os.close(gate)
        os.close(opening)
        yield codes, listing(folder)


@pytest.fixture
def pair(tmp_path):
    """Two captures, two dumps and their containers, and a folder to write to."""
    for name, tokens in (("a", 40), ("b", 80)):
        (tmp_path / name).write_bytes(canonical_capture(tokens=tokens))
        write_folder(tmp_path / f"{name}s", vllm_files(tokens=tokens))
        done("compress", tmp_path / name)
        done("compress", tmp_path / f"{name}s", "--layout", "vllm")
    (tmp_path / "out").mkdir()
    return tmp_path


def either(folder, name):
    """What `out` holds with the one or the other under a name."""
    found = []
    for each in (folder / "a", folder / "b"):
        path = each if name == "file" else each.with_name(f"{each.name}s")
        inner = listing(path) if path.is_dir() else {}
        data = None if path.is_dir() else path.read_bytes()
        found.append({"x": data, **{f"x/{key}": value for key, value in inner.items()}})
    return found


def called_x(pair, kind):
    """Both containers, each as x.kvq in a folder of its own."""
    for name in "ab":
        (pair / f"from-{name}").mkdir()
        source = pair / (f"{name}s.kvq" if kind == "folder" else f"{name}.kvq")
        yield shutil.copy(source, pair / f"from-{name}" / "x.kvq")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_writers(kind, pair):
    """Of two writers to one name one wins, and the other is told that it exists."""
    lines = [("decompress", each, "-o", f"{pair / 'out'}/") for each in called_x(pair, kind)]
    for codes, found in race(lines, pair / "out", lambda: empty(pair / "out")):
        assert codes == [0, 5]
        assert found in either(pair, kind)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_two_writers_with_force(kind, pair):
    """Both succeed, and the last one stays, whole."""
    sources = called_x(pair, kind)
    lines = [("decompress", each, "-o", f"{pair / 'out'}/", "--force") for each in sources]
    for codes, found in race(lines, pair / "out"):
        assert codes == [0, 0]
        assert found in either(pair, kind)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def replace_again_and_again(target, sources):
    """A child that puts the one and the other there until it is killed."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        while True:
            for source in sources:
                kvq("compress", source, "-o", target, "--force", "-T1")
    finally:
        os._exit(1)


def test_readers_while_it_is_replaced(pair):
    """Each reader sees the old or the new file, whole."""
    target = pair / "out" / "x.kvq"
    whole = [(pair / name).read_bytes() for name in "ab"]
    done("compress", pair / "a", "-o", target)
    writer = replace_again_and_again(target, [pair / "a", pair / "b"])
    try:
        seen = set()
        until = time.monotonic() + 20
        while time.monotonic() < until and len(seen) < 2:
            for _ in range(10):
                done("verify", target, "-T1")
                done("decompress", target, "-o", pair / "back", "-f", "-T1")
                seen.add(whole.index((pair / "back").read_bytes()))
        assert len(seen) == 2
    finally:
        os.kill(writer, signal.SIGKILL)
        os.waitpid(writer, 0)


def open_end(path, *arguments, data):
    """A writer that has begun, and waits for the rest of its input."""
    reading, feeding = os.pipe()
    writer = start(*arguments, stdin=reading, first=lambda: os.close(feeding))
    os.close(reading)
    os.write(feeding, data[: len(data) // 2])
    until = time.monotonic() + 20
    while not list(path.glob(".kvq-*")):
        assert time.monotonic() < until
        time.sleep(0.01)
    return writer, feeding


def test_a_live_writer_is_let_be(container, tmp_path):
    """Another writer to the same name goes on beside it, and takes nothing away from it."""
    out = tmp_path / "out"
    out.mkdir()
    data = container.read_bytes()
    writer, feeding = open_end(out, "decompress", "-", "-o", out / "x", "-f", data=data)
    before = sorted(os.listdir(out))
    done("decompress", container, "-o", out / "x")
    assert sorted(os.listdir(out)) == [*before, "x"]
    os.unlink(out / "x")
    os.write(feeding, data[len(data) // 2 :])
    os.close(feeding)
    assert ended(writer) == 0
    assert listing(out) == {"x": (tmp_path / "cache").read_bytes()}


def test_a_killed_writer_is_cleared_away(container, tmp_path):
    """What it left is gone with the next run over the same name, and stays until then."""
    out = tmp_path / "out"
    out.mkdir()
    data = container.read_bytes()
    for _ in range(3):
        writer, feeding = open_end(out, "decompress", "-", "-o", out / "x", data=data)
        os.kill(writer, signal.SIGKILL)
        assert ended(writer) == -signal.SIGKILL
        os.close(feeding)
        assert len(os.listdir(out)) == 1
    done("decompress", container, "-o", out / "y")
    assert len(os.listdir(out)) == 2
    done("decompress", container, "-o", out / "x")
    assert sorted(os.listdir(out)) == ["x", "y"]


def test_what_lies_at_a_temporary_name_is_not_followed(capture, tmp_path):
    """A link, a file and a named pipe that somebody put there stay as they are."""
    done("compress", capture, "-o", tmp_path / "x")
    name = temporary._made  # nothing is left of the first run
    assert not name
    for plant in (
        lambda path: path.symlink_to(tmp_path / "precious"),
        lambda path: path.write_bytes(b"precious"),
        os.mkfifo,
    ):
        out = tmp_path / "out"
        out.mkdir()
        write_folder(tmp_path / "precious", {"file": b"kept"})
        hidden = temporary.beside(out / "x", temporary.plain(b"x").hex()[: temporary.DIGITS])
        plant(hidden)
        with left_alone(tmp_path / "precious"):
            done("compress", capture, "-o", out / "x")
        assert sorted(os.listdir(out)) == [hidden.name, "x"]
        assert (out / "x").read_bytes() == (tmp_path / "x").read_bytes()
        shutil.rmtree(out)


@pytest.mark.parametrize("lacks", ["flock", "renameat2", "link"])
def test_poorer_file_systems(lacks, pair, monkeypatch):
    """Without locks nothing is taken for stale; without the rest there are other ways."""

    def refuse(*_, **__):
        raise OSError(95, "Operation not supported")

    if lacks == "renameat2":
        monkeypatch.setattr(renaming, "_renameat2", lambda *_: False)
    else:
        monkeypatch.setattr(temporary.fcntl if lacks == "flock" else os, lacks, refuse)
    out = pair / "out"
    stale = temporary.beside(out / "x", temporary.plain(b"x").hex()[: temporary.DIGITS])
    stale.mkdir()
    for name in "ab":
        done("decompress", pair / f"{name}.kvq", "-o", out / "x", *["-f"] * (name == "b"))
        (pair / f"from-{name}").mkdir()
        source = shutil.copy(pair / f"{name}s.kvq", pair / f"from-{name}" / "y.kvq")
        done("decompress", source, "-o", f"{out}/", *["-f"] * (name == "b"))
    assert stale.exists() == (lacks == "flock")
    stale.rmdir() if stale.exists() else None
    assert sorted(os.listdir(out)) == ["x", "y"]
    assert (out / "x").read_bytes() == (pair / "b").read_bytes()
    assert listing(out / "y") == listing(pair / "bs")
    refused(kvq("decompress", pair / "as.kvq", "-o", out / "x"), 5, "E103")


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_modes(umask, pair, monkeypatch):
    """Files and folders have the mode that umask leaves; what grows is the user's alone."""
    seen = []
    original = os.fsync

    def watched(fd):
        hidden = (pair / "out").glob(".kvq-*")
        seen.extend(stat.S_IMODE(path.stat().st_mode) for path in hidden)
        original(fd)

    monkeypatch.setattr(os, "fsync", watched)
    before = os.umask(umask)
    try:
        done("compress", pair / "a", "-o", pair / "out" / "x")
        done("decompress", pair / "as.kvq", "-o", pair / "out" / "y", "-T1")
    finally:
        assert os.umask(before) == umask
    assert set(seen) == {0o700}
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in [*(pair / "out").iterdir(), *(pair / "out" / "y").iterdir()]
    }
    for path, mode in modes.items():
        assert mode == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_links_at_the_output_name(pair):
    """A link, also one to nothing, is an output that exists; with --force its file is replaced."""
    out = pair / "out"
    (out / "x").symlink_to(pair / "nothing")
    refused(kvq("compress", pair / "a", "-o", out / "x"), 5, "E103")
    assert not (pair / "nothing").exists()
    done("compress", pair / "a", "-o", out / "x", "-f")
    assert (out / "x").is_symlink()
    assert (pair / "nothing").read_bytes() == (pair / "a.kvq").read_bytes()
    (out / "bs").symlink_to(pair / "as")
    with left_alone(pair / "as"):
        refused(kvq("decompress", pair / "bs.kvq", "-o", f"{out}/"), 5, "E103")
        done("decompress", pair / "bs.kvq", "-o", f"{out}/", "-f")
    assert listing(out / "bs") == listing(pair / "bs")
    assert not (out / "bs").is_symlink()


def closing(*ours):
    """A first step of a child: the ends of pipes that are its parent's."""

    def close():
        for fd in ours:
            os.close(fd)

    return close


@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_reader_that_leaves(command, tmp_path):
    """Wherever the reader of standard output stops: exit code 141, and no word."""
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture(layers=4, tokens=600, channels=64))
    done("compress", capture, "-T1")
    source, result = capture, tmp_path / "cache.kvq"
    source, result = (source, result) if command == "compress" else (result, source)
    whole = result.stat().st_size
    for amount in range(0, whole - (1 << 17), whole // 12):
        reading, out = os.pipe()
        with (tmp_path / "err").open("w+b") as err:
            streams = {"out": out, "err": err.fileno()}
            child = start(command, source, "-o", "-", "-T1", **streams, first=closing(reading))
            os.close(out)
            left = amount
            while left:
                left -= len(os.read(reading, left))
            os.close(reading)
            assert ended(child) == 141, amount
            err.seek(0)
            assert err.read() == b"", amount
    assert sorted(os.listdir(tmp_path)) == ["cache", "cache.kvq", "err"]


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_a_writer_that_leaves(command, container, tmp_path):
    """Wherever standard input ends early: damaged, one line, and nothing is written."""
    data = (tmp_path / "cache" if command == "compress" else container).read_bytes()
    to = [] if command == "verify" else ["-o", tmp_path / "x"]
    (tmp_path / "err").touch()
    before = sorted(os.listdir(tmp_path))
    for length in [0, 1, 63, *range(64, len(data), len(data) // 20), len(data) - 1]:
        stdin, feeding = os.pipe()
        with (tmp_path / "err").open("w+b") as err:
            child = start(
                command, "-", *to, "-T1", stdin=stdin, err=err.fileno(), first=closing(feeding)
            )
            os.close(stdin)
            os.write(feeding, data[:length])
            os.close(feeding)
            assert ended(child) in (3, 4)
            err.seek(0)
            assert len(err.readlines()) == 1
        assert sorted(os.listdir(tmp_path)) == before


def test_a_storm_of_signals(container, tmp_path):
    """Calls that a signal interrupts are made again: what comes and goes by pipes is whole."""
    heard, told = os.pipe()

    def storm():
        closing(feeding, reading, heard)()
        signal.signal(signal.SIGALRM, lambda *_: os.write(told, b"!"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)

    for command, source, wanted in (
        ("compress", tmp_path / "cache", container),
        ("decompress", container, tmp_path / "cache"),
    ):
        stdin, feeding = os.pipe()
        reading, out = os.pipe()
        child = start(command, "-", "-o", "-", "-T1", stdin=stdin, out=out, first=storm)
        os.close(stdin)
        os.close(out)
        data = source.read_bytes()
        for at in range(0, len(data), 1 + len(data) // 20):
            os.write(feeding, data[at : at + 1 + len(data) // 20])
            time.sleep(0.005)
        os.close(feeding)
        found = b""
        while piece := os.read(reading, 1000):
            found += piece
            time.sleep(0.0002)
        os.close(reading)
        assert ended(child) == 0
        assert found == wanted.read_bytes()
        assert os.read(heard, 1 << 20)
    os.close(heard)
    os.close(told)

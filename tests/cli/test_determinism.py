"""Threads change nothing; storage changes file_root alone."""

from __future__ import annotations

import json

import pytest

from support.captures import canonical_capture, per_layer_capture
from support.shell import done, kvq, process, refused


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "cache"
    path.write_bytes(per_layer_capture(tokens=(300, 700, 40), heads=3, channels=16))
    return path


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_threads(profile, capture, tmp_path):
    """-T 1, 2 and 5 write the same container, and restore the same file."""
    files, backs = set(), set()
    for threads in (1, 2, 5):
        done("compress", capture, "-p", profile, "-T", threads, "-f")
        files.add((tmp_path / "cache.kvq").read_bytes())
        done("decompress", tmp_path / "cache.kvq", "-T", threads, "-f", "-o", tmp_path / "back")
        backs.add((tmp_path / "back").read_bytes())
        done("verify", tmp_path / "cache.kvq", "-T", threads, "--against", capture)
    assert len(files) == len(backs) == 1


def test_worker_processes(tmp_path):
    """A command of its own forks workers where there are jobs for several: same files, same words.

    A damaged page in the middle is told of in the same line.
    """
    (tmp_path / "cache").write_bytes(canonical_capture(layers=5, heads=8, tokens=1024, channels=64))
    told = set()
    for threads in (1, 2, 4):
        box, back, row = (tmp_path / f"{name}{threads}" for name in ("box", "back", "row"))
        commands = [
            ("compress", "cache", "-p", "int8", "-o", box.name),
            ("verify", box.name, "--against", "cache", "--json"),
            ("stats", box.name, "--against", "cache", "--json"),
            ("decompress", box.name, "-o", back.name),
            ("decompress", box.name, "-o", row.name, "--tokens", "3:1000"),
        ]
        out = b""
        for words in commands:
            ran = process(*words, "-T", threads, cwd=tmp_path)
            assert ran.code == 0, ran.err
            out += ran.out
        piped = process("decompress", "-", "-o", "-", "-T", threads, stdin=box.read_bytes())
        assert piped.out == back.read_bytes(), piped.err
        damaged = bytearray(box.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        (tmp_path / "damaged").write_bytes(damaged)
        ran = process("verify", "damaged", "-T", threads, cwd=tmp_path)
        assert ran.code == 3
        out = out.replace(box.name.encode(), b"box")
        told.add((out, ran.err, box.read_bytes(), back.read_bytes(), row.read_bytes()))
    assert len(told) == 1


def test_threads_from_the_environment(capture, monkeypatch):
    """KVQ_THREADS is honoured, -T wins over it, and nonsense is usage."""
    import kvq_cli.steps.work as work

    asked = []
    original = work.thread_count
    monkeypatch.setattr(work, "thread_count", lambda count: asked.append(count) or original(count))
    monkeypatch.setenv("KVQ_THREADS", "3")
    done("compress", capture)
    done("compress", capture, "-f", "-T", "2")
    assert asked == [3, 2]
    for text in ("-2", "many"):
        monkeypatch.setenv("KVQ_THREADS", text)
        refused(kvq("compress", capture, "-f"), 2, "E101")


def roots(capture, *arguments):
    report = done("compress", capture, "-f", "--json", *arguments).result
    return report["content_root"], report["file_root"]


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_storage_changes_file_root_alone(profile, capture, tmp_path):
    """Level, alignment and entropy none: another file_root, the same content_root."""
    plain = json.loads(done("profile", "show", profile).out)
    plain["storage"]["entropy"] = "none"
    (tmp_path / "none.json").write_text(json.dumps(plain))
    found = [
        roots(capture, "-p", profile),
        roots(capture, "-p", profile, "--level", "19"),
        roots(capture, "-p", profile, "--align", "4096"),
        roots(capture, "-p", tmp_path / "none.json"),
    ]
    assert len({content for content, _ in found}) == 1
    assert len({file for _, file in found}) == 4
    done("verify", tmp_path / "cache.kvq", "--content-root", found[0][0], "-p", profile)


def test_nothing_of_this_machine_is_written(tmp_path):
    """Two captures of one content under other names and folders give one container."""
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / f"{name}.safetensors"
        path.write_bytes(canonical_capture(metadata={"model": "m"}))
        seed = {"PYTHONHASHSEED": str(len(files) + 1)}
        ran = process("compress", path, "-p", "int8", env=seed)
        assert ran.code == 0
        files.append(path.with_name(f"{path.name}.kvq").read_bytes())
    assert files[0] == files[1]
    assert str(tmp_path).encode() not in files[0]

"""Folders as captures: odd names and files, where they are written, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from support.captures import canonical_capture, safetensors_bytes, vllm_files, write_folder
from support.shell import COMMAND, done, environment, kvq, left_alone, listing, process, refused

NAME = "model.layers.{}.self_attn.attn.safetensors"


def dump(path, **recipe):
    return write_folder(path, vllm_files(**recipe))


def container(tmp_path, **recipe):
    """A folder and its container."""
    source = dump(tmp_path / "dump", **recipe)
    done("compress", source, "--layout", "vllm")
    return source, tmp_path / "dump.kvq"


@pytest.mark.parametrize("name", ["a b {}", "é{}", " {} ", ".{}", "-{}", "a'\"{}", "x/y z/{}"])
def test_names_are_kept(name, tmp_path):
    """Printable names come back, in their folders."""
    source = dump(tmp_path / "dump", name=f"{name}.layers.{{0}}.x.safetensors".replace("{}", "0"))
    done("compress", source, "--layout", "vllm")
    done("decompress", tmp_path / "dump.kvq", "-o", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(source)


@pytest.mark.parametrize("name", ["a\n{}", "a\\{}", "a\x1b[31m{}", "a\u202e{}", "{}\t"])
def test_names_that_are_not_kept(name, tmp_path):
    """Newlines, backslashes and control characters are refused, escaped in the message."""
    source = dump(tmp_path / "dump", name=name + ".layers.{0}.x.safetensors".replace("{0}", "1"))
    with left_alone(tmp_path):
        ran = kvq("compress", source)
        message = refused(ran, 4, "E204", "no file name that kvq keeps")
        assert message.isprintable()


def test_stray_files_are_carried(tmp_path):
    """Files of other kinds and other tensors come back; empty folders are not files."""
    source = dump(tmp_path / "dump")
    write_folder(source, {"README.txt": b"hello", "empty": b"", "w.safetensors": canonical()})
    (source / "nothing").mkdir()
    done("compress", source, "--layout", "vllm")
    done("decompress", tmp_path / "dump.kvq", "-o", tmp_path / "back")
    (source / "nothing").rmdir()
    assert listing(tmp_path / "back") == listing(source)


def canonical():
    return safetensors_bytes({"w": ("F32", (2,), bytes(8))})


def test_two_layouts_in_one_folder(tmp_path):
    """A dump beside a canonical file is one or the other, as the user says."""
    source = dump(tmp_path / "dump")
    write_folder(source, {"cache.safetensors": canonical_capture()})
    with left_alone(tmp_path):
        refused(kvq("compress", source), 4, "E204", "canonical, vllm_dump")
    for layout in ("canonical", "vllm"):
        done("compress", source, "--layout", layout, "-f")
        done("verify", tmp_path / "dump.kvq", "--against", source)
        done("decompress", tmp_path / "dump.kvq", "-o", tmp_path / layout)
        assert listing(tmp_path / layout) == listing(source)


def test_no_files(tmp_path):
    """An empty folder, and one without safetensors files, hold no capture."""
    (tmp_path / "dump").mkdir()
    for name in (None, "a.txt", "b/c.bin"):
        write_folder(tmp_path / "dump", {name: b"x"} if name else {})
        with left_alone(tmp_path):
            refused(kvq("compress", tmp_path / "dump"), 4, "E204", "*.safetensors")


def test_a_damaged_file_is_named(tmp_path):
    source = dump(tmp_path / "dump")
    path = source / NAME.format(1)
    path.write_bytes(path.read_bytes()[:-1])
    for command in ("compress", "inspect", "stats"):
        with left_alone(tmp_path):
            refused(kvq(command, source), 3, "E201", path.name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path):
    source = dump(tmp_path / "dump")
    (source / NAME.format(1)).chmod(0)
    refused(kvq("compress", source), 6, "E601")


@pytest.mark.parametrize("to", ["secret", "folder", "dump"])
def test_a_link_takes_nothing_along(to, tmp_path):
    """Links are followed to tensors alone: what else they lead to stays out of the container."""
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "folder").mkdir()
    source = dump(tmp_path / "dump")
    (source / "notes.txt").symlink_to(tmp_path / to)
    with left_alone(tmp_path):
        refused(kvq("compress", source), 4, "E204", "notes.txt", "link")


def test_a_link_to_nothing_and_a_pipe(tmp_path):
    """What is no regular file is refused; a pipe is not waited for."""
    source = dump(tmp_path / "dump")
    (source / "layers.7.x.safetensors").symlink_to("nowhere")
    refused(kvq("compress", source), 4, "E204", "not a regular file")
    (source / "layers.7.x.safetensors").unlink()
    os.mkfifo(source / "layers.7.x.safetensors")
    refused(kvq("compress", source), 4, "E204", "not a regular file")


def test_links_to_files(tmp_path):
    """They are the files that they lead to, and come back as files."""
    kept = dump(tmp_path / "kept")
    source = tmp_path / "dump"
    source.mkdir()
    for name in listing(kept):
        (source / name).symlink_to(kept / name)
    assert all(name.endswith(".safetensors") for name in listing(kept))
    done("compress", source, "--layout", "vllm")
    done("decompress", tmp_path / "dump.kvq", "-o", tmp_path / "back")
    assert listing(tmp_path / "back") == listing(kept)
    assert not any(path.is_symlink() for path in (tmp_path / "back").iterdir())


def test_a_link_to_the_folder(tmp_path):
    dump(tmp_path / "kept")
    (tmp_path / "dump").symlink_to("kept")
    done("compress", tmp_path / "dump", "--layout", "vllm")
    done("verify", tmp_path / "dump.kvq", "--against", tmp_path / "kept")


def test_a_folder_that_exists(tmp_path):
    """The default target is not replaced without --force, and wholly with it."""
    source, packed = container(tmp_path)
    before = listing(source)
    (source / "new").write_bytes(b"x")
    with left_alone(tmp_path):
        refused(kvq("decompress", packed), 5, "E103", "--force")
    done("decompress", packed, "--force")
    assert listing(source) == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["dump", "dump.kvq"]


def test_into_a_folder_that_exists(tmp_path):
    """-o names a folder to put it into, as it does for files."""
    source, packed = container(tmp_path)
    (tmp_path / "out").mkdir()
    done("decompress", packed, "-o", tmp_path / "out")
    assert listing(tmp_path / "out" / "dump") == listing(source)
    with left_alone(tmp_path):
        refused(kvq("decompress", packed, "-o", tmp_path / "out"), 5, "E103")


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_is_no_folder(force, tmp_path):
    """A file in the way is not replaced by a folder, unless one insists."""
    source, packed = container(tmp_path)
    (tmp_path / "out").write_bytes(b"x")
    ran = kvq("decompress", packed, "-o", tmp_path / "out", *force)
    if force:
        assert listing(tmp_path / "out") == listing(source)
    else:
        refused(ran, 5, "E103")
        assert (tmp_path / "out").read_bytes() == b"x"
    assert not list(tmp_path.glob(".kvq-*"))


def test_no_folder_into_a_pipe(tmp_path):
    """A folder is not written to standard output; another layout is."""
    _, packed = container(tmp_path)
    with left_alone(tmp_path):
        for arguments in ([packed], [packed, "--layout", "vllm"]):
            ran = process("decompress", *arguments, "-o", "-")
            assert (ran.code, ran.out) == (5, b"")
            assert "KVQ-E105" in ran.err
    assert process("decompress", packed, "--layout", "hf", "-o", "-").code == 0


def test_a_container_from_a_pipe(tmp_path):
    """A folder is restored from a pipe too."""
    source, packed = container(tmp_path)
    ran = process("decompress", "-", "-o", tmp_path / "back", stdin=packed.read_bytes())
    assert ran.code == 0, ran.err
    assert listing(tmp_path / "back") == listing(source)


def test_damage_leaves_nothing(tmp_path):
    """A container that breaks off half way leaves no folder."""
    _, packed = container(tmp_path)
    data = bytearray(packed.read_bytes())
    data[len(data) // 2] ^= 1
    packed.write_bytes(data)
    with left_alone(tmp_path):
        assert kvq("decompress", packed, "-o", tmp_path / "back").code == 3


def test_a_killed_restore_leaves_nothing_in_place(tmp_path):
    """SIGTERM in the midst of it: no target, and no temporary folder."""
    source, packed = container(tmp_path)
    before = sorted(each.name for each in tmp_path.iterdir())
    arguments = [*COMMAND, "decompress", "-", "-o", str(tmp_path / "back")]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
    ) as running:
        running.stdin.write(packed.read_bytes()[:-200])
        running.stdin.flush()
        until = time.monotonic() + 20
        while len(list(tmp_path.iterdir())) == len(before) and time.monotonic() < until:
            time.sleep(0.02)
        running.send_signal(signal.SIGTERM)
        assert running.wait(timeout=20) != 0
    assert sorted(each.name for each in tmp_path.iterdir()) == before
    assert source.is_dir()


def test_a_shared_folder_among_inputs(tmp_path):
    """Several folders are several captures, each with its container."""
    for name in ("a", "b"):
        dump(tmp_path / name)
    (tmp_path / "out").mkdir()
    done("compress", tmp_path / "a", tmp_path / "b", "--layout", "vllm", "-o", f"{tmp_path}/out/")
    assert sorted(os.listdir(tmp_path / "out")) == ["a.kvq", "b.kvq"]

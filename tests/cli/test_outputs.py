"""Outputs are complete or absent, and nothing is overwritten by accident."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from support.captures import canonical_capture
from support.shell import done, kvq, left_alone, process, refused


@pytest.fixture
def capture(tmp_path):
    path = tmp_path / "cache.safetensors"
    path.write_bytes(canonical_capture())
    return path


def test_default_names(capture):
    """x becomes x.kvq beside it, and x.kvq becomes x again."""
    data = capture.read_bytes()
    done("compress", capture)
    capture.unlink()
    done("decompress", f"{capture}.kvq")
    assert capture.read_bytes() == data


def test_existing_outputs_are_kept(capture):
    """Without --force an existing output is E103; with it, it is replaced."""
    target = capture.with_name("cache.safetensors.kvq")
    target.write_bytes(b"precious")
    with left_alone(capture.parent):
        refused(kvq("compress", capture), 5, "E103", str(target))
    done("compress", capture, "--force")
    with left_alone(capture.parent):
        refused(kvq("decompress", target), 5, "E103", str(capture))


def test_an_output_that_appears_meanwhile_is_kept(capture, monkeypatch):
    """A file that somebody else puts there while kvq works is not replaced."""
    target = capture.with_name("late.kvq")
    sync = os.fsync

    def late(fd):
        target.write_bytes(b"precious")
        sync(fd)

    monkeypatch.setattr(os, "fsync", late)
    refused(kvq("compress", capture, "-o", target), 5, "E103")
    assert target.read_bytes() == b"precious"
    assert sorted(each.name for each in capture.parent.iterdir()) == [capture.name, target.name]


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_output_is_the_input(force, capture):
    """By its own name, by a symbolic link, by a hard link: E104, even with --force."""
    linked, hard = capture.with_name("linked"), capture.with_name("hard")
    linked.symlink_to(capture)
    hard.hardlink_to(capture)
    with left_alone(capture.parent):
        for output in (capture, linked, hard, capture.parent / "." / capture.name):
            refused(kvq("compress", capture, "-o", output, *force), 5, "E104")
        refused(kvq("compress", linked, "-o", capture, *force), 5, "E104")


def test_output_is_standard_input(capture):
    """A capture that comes through a redirection is an input like any other."""
    with left_alone(capture.parent), capture.open("rb") as file:
        ran = process("compress", "-", "-f", "-o", capture, stdin=file)
        refused(ran, 5, "E104", "standard input")


def test_force_follows_a_link(capture):
    """--force through a symbolic link replaces the file and keeps the link."""
    real, link = capture.with_name("real.kvq"), capture.with_name("link.kvq")
    real.write_bytes(b"old")
    link.symlink_to(real)
    refused(kvq("compress", capture, "-o", link), 5, "E103")
    done("compress", capture, "-o", link, "--force")
    assert link.is_symlink()
    assert not real.is_symlink()
    done("verify", real)


def test_missing_and_wrong_targets(capture):
    """A target folder that is not there, a file in its place, a folder as the file: E601."""
    with left_alone(capture.parent):
        refused(kvq("compress", capture, "-o", capture.parent / "no" / "x.kvq"), 6, "E601")
        refused(kvq("compress", capture, "-o", f"{capture.parent / 'no'}/"), 6, "E601")
        refused(kvq("compress", capture, "-o", capture / "x.kvq"), 6, "E601")


def test_missing_inputs_and_folders(tmp_path):
    """Every command says which file it cannot read, and why."""
    missing = tmp_path / "missing.kvq"
    for command in ("compress", "decompress", "inspect", "verify", "stats"):
        refused(kvq(command, missing), 6, "E601", str(missing), "no such file")
        (tmp_path / "folder.kvq").mkdir(exist_ok=True)
        folder = kvq(command, tmp_path / "folder.kvq")
        if command in ("decompress", "verify"):
            refused(folder, 6, "E601", "directory")
        else:
            refused(folder, 4, "E204", "no file in it")
    refused(kvq("verify", "--check", missing), 6, "E601", str(missing))
    refused(kvq("compress", "--files-from", missing), 6, "E601", str(missing))


def test_permission_denied(capture, monkeypatch):
    """What the system forbids is E601 with its reason."""
    done("compress", capture)
    original = os.open

    def forbidden(path, *arguments, **options):
        if str(path).endswith((".safetensors", ".kvq")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "open", forbidden)
    refused(kvq("compress", capture, "-f"), 6, "E601", str(capture), "permission denied")
    refused(kvq("verify", f"{capture}.kvq"), 6, "E601", str(capture), "ermission denied")


@pytest.mark.parametrize("name", ["writev", "fsync", "link"])
def test_a_full_disk(name, capture, monkeypatch):
    """No space: E601, no partial output, no temporary file."""

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with left_alone(capture.parent), monkeypatch.context() as patched:
        patched.setattr(os, name, full)
        refused(kvq("compress", capture), 6, "E601", "o space left")


def test_a_full_disk_while_restoring(capture, monkeypatch):
    """The same when a page is written by a thread."""
    done("compress", capture)

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with left_alone(capture.parent), monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", full)
        ran = kvq("decompress", f"{capture}.kvq", "-o", capture.with_name("back"))
        refused(ran, 6, "E601", "o space left")


def test_devices_are_written_to_and_never_replaced(capture):
    """-o /dev/null discards, -o /dev/full is a full disk, and both stay devices."""
    for force in ([], ["--force"]):
        done("compress", capture, "-o", "/dev/null", *force)
        refused(kvq("compress", capture, "-o", "/dev/full", *force), 6, "E601", "o space left")
    for device in ("/dev/null", "/dev/full"):
        assert stat.S_ISCHR(os.stat(device).st_mode)


def test_standard_output_on_a_full_disk(capture):
    """A full disk behind > is one line and exit code 6, for data and for reports."""
    for command in (["compress", capture, "-o", "-"], ["inspect", capture], ["--help"]):
        with open("/dev/full", "wb") as full:
            ran = process_to(full, *command)
        assert ran.returncode == 6, command
        assert ran.stderr.count(b"\n") == 1, ran.stderr


def process_to(stdout, *arguments):
    import subprocess

    from support.shell import COMMAND

    line = [*COMMAND, *map(str, arguments)]
    return subprocess.run(line, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60)


def test_file_systems_without_hard_links(capture, monkeypatch):
    """Where link is not supported the name is claimed, and an existing file is still kept."""

    def refuse(*_arguments, **_options):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    done("compress", capture)
    done("verify", f"{capture}.kvq")
    with left_alone(capture.parent):
        refused(kvq("compress", capture), 5, "E103")


def test_outputs_get_the_mode_that_umask_asks_for(capture):
    """Temporary files are private; what stands in the end is as any other new file."""
    before = os.umask(0o027)
    try:
        done("compress", capture)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(f"{capture}.kvq").st_mode) == 0o640


def test_a_file_called_dash(tmp_path, monkeypatch):
    """./- is a file; - is a stream."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_bytes(canonical_capture())
    done("compress", "./-")
    assert (tmp_path / "-.kvq").exists()
    (tmp_path / "-").unlink()
    done("decompress", "./-.kvq", "-o", "./-")
    assert (tmp_path / "-").read_bytes() == canonical_capture()


def test_a_name_inside_a_message_is_no_excuse(tmp_path, monkeypatch):
    """The input is named even where its name occurs elsewhere in the message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_bytes(b"not a tensor file at all")
    assert refused(kvq("compress", "a"), 3, "E201").startswith("a: ")

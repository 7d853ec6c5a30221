"""What the README promises, on the sample captures and through the command itself."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kvq_cli

SAMPLES = Path(__file__).parents[2] / "sample_data"
CAPTURES = [
    SAMPLES / "smollm2-sample-4x3x96x64-f16.safetensors",
    SAMPLES / "ragged-3-layers-bf16.safetensors",
]
SMALL = CAPTURES[1]


def kvq(*arguments, data=None):
    """The finished process; nothing is inherited from the caller's environment."""
    kept = {key: text for key, text in os.environ.items() if not key.startswith("KVQ_")}
    command = [sys.executable, "-m", "kvq_cli", *map(str, arguments)]
    return subprocess.run(command, input=data, capture_output=True, check=False, env=kept)


@pytest.fixture
def capture(tmp_path):
    return Path(shutil.copy(SMALL, tmp_path / "cache.safetensors"))


@pytest.mark.parametrize("source", CAPTURES, ids=lambda path: path.stem)
@pytest.mark.parametrize("profile", ["lossless", "raw"])
def test_restored_is_the_original(source, profile, tmp_path):
    """Without loss the restored file is the capture, byte for byte."""
    kvq_cli.compress(source, tmp_path / "c.kvq", profiles=[profile])
    kvq_cli.decompress(tmp_path / "c.kvq", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == source.read_bytes()


def test_without_a_profile_nothing_is_lost(capture, tmp_path):
    """The default is lossless, and the report says so."""
    report = kvq_cli.compress(capture, tmp_path / "c.kvq")
    assert [each["name"] for each in report.profiles] == ["lossless"]


def test_a_flipped_bit_is_found(capture, tmp_path):
    """In every hundredth byte, one bit after the other, and never more than a refusal."""
    target = tmp_path / "c.kvq"
    kvq_cli.compress(capture, target, profiles=["int8"])
    whole = target.read_bytes()
    for number, at in enumerate(range(0, len(whole), 101)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << number % 8
        target.write_bytes(damaged)
        with pytest.raises(kvq_cli.KvqError) as refusal:
            kvq_cli.verify(target, threads=1)
        assert refusal.value.exit_code in (3, 4), at


def test_a_missing_tail_is_found(capture, tmp_path):
    """A container that ends early is refused, wherever it ends, also after its last byte."""
    target = tmp_path / "c.kvq"
    kvq_cli.compress(capture, target)
    whole = target.read_bytes()
    for data in (*(whole[:size] for size in range(0, len(whole), 997)), whole[:-1], whole + b"\0"):
        target.write_bytes(data)
        with pytest.raises(kvq_cli.KvqError) as refusal:
            kvq_cli.verify(target, threads=1)
        assert refusal.value.exit_code == 3, len(data)


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_bytes_do_not_depend_on_threads_or_pipes(profile, tmp_path):
    """One thread, three threads and a pipe write the same file."""
    found = set()
    for threads in (1, 3):
        target = tmp_path / f"{threads}.kvq"
        kvq_cli.compress(CAPTURES[0], target, profiles=[profile], threads=threads)
        found.add(target.read_bytes())
    piped = kvq("compress", "-", "--profile", profile, data=CAPTURES[0].read_bytes())
    assert found == {piped.stdout}
    assert kvq("verify", "-", data=piped.stdout).returncode == 0


def test_content_root_survives_level_and_alignment(capture, tmp_path):
    """It names the compressed cache, not the file."""
    settings = ({}, {"level": 9}, {"alignment": 4096})
    reports = [
        kvq_cli.compress(capture, tmp_path / f"{at}.kvq", profiles=["int8"], **each)
        for at, each in enumerate(settings)
    ]
    assert len({report.content_root for report in reports}) == 1
    assert len({report.file_root for report in reports}) == len(settings)


def test_nothing_is_overwritten_without_force(capture, tmp_path):
    """An existing target is refused and stays; with --force it is replaced."""
    target = tmp_path / "cache.safetensors.kvq"
    target.write_bytes(b"mine")
    assert kvq("compress", capture).returncode == 5
    assert target.read_bytes() == b"mine"
    assert kvq("compress", "--force", capture).returncode == 0
    assert kvq("verify", target).returncode == 0


def test_the_input_is_never_the_output(capture):
    """Not even with --force."""
    before = capture.read_bytes()
    assert kvq("compress", capture, "-o", capture, "--force").returncode == 5
    assert capture.read_bytes() == before


def test_a_failed_command_leaves_nothing(capture, tmp_path):
    """A damaged container gives one line, a code, no output and no temporary file."""
    target = tmp_path / "cache.kvq"
    kvq_cli.compress(capture, target)
    damaged = bytearray(target.read_bytes())
    damaged[-2000] ^= 1
    target.write_bytes(damaged)
    before = sorted(tmp_path.iterdir())
    done = kvq("decompress", target, "-o", tmp_path / "back.safetensors")
    assert done.returncode == 3
    assert done.stdout == b""
    assert done.stderr.startswith(b"kvq: error KVQ-E")
    assert done.stderr.count(b"\n") == 1
    assert sorted(tmp_path.iterdir()) == before
    assert target.read_bytes() == damaged

"""Shards: files of one capture, with or without an index, come back file by file."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.captures import kv_bits, per_layer_capture, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

LAYERS = 4


@pytest.fixture
def shards(tmp_path):
    """Two layers a file, an index, and a note beside them."""
    folder = tmp_path / "dump"
    folder.mkdir()
    weights = {}
    for at in range(2):
        name = f"kv-{at:05}.safetensors"
        tensors = {}
        for layer in (2 * at, 2 * at + 1):
            for role in ("key", "value"):
                bits = kv_bits((1, 2, 9, 8), "F16", 2 * layer + len(role))
                tensors[f"layers.{layer}.{role}"] = ("F16", bits.shape, bits.tobytes())
        (folder / name).write_bytes(safetensors_bytes(tensors, {"model": "m", "part": str(at)}))
        weights |= dict.fromkeys(tensors, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weights}
    (folder / "kv.safetensors.index.json").write_text(json.dumps(index))
    (folder / "note.txt").write_text("of another kind\n")
    return folder


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("profile", ["lossless", "raw"])
def test_a_folder_comes_back(shards, tmp_path, profile):
    """Names and bytes of all files, beside the container by default or where -o says."""
    done("compress", shards, "-p", profile, "-q")
    box = tmp_path / "dump.kvq"
    done("decompress", box, "-o", tmp_path / "back")
    assert contents(tmp_path / "back") == contents(shards)
    ran = kvq("decompress", box)
    refused(ran, 5, "E103", "exists")
    done("verify", box, "--against", shards)
    done("decompress", box, "-f")
    assert contents(tmp_path / "dump") == contents(tmp_path / "back")
    (tmp_path / "in").mkdir()
    done("decompress", box, "-o", f"{tmp_path / 'in'}/")
    assert contents(tmp_path / "in" / "dump") == contents(shards)


def test_an_index_names_its_files(shards, tmp_path):
    """By its index a capture is the index and what it names, and no note."""
    done("compress", shards / "kv.safetensors.index.json", "-o", tmp_path / "x.kvq")
    done("decompress", tmp_path / "x.kvq", "-o", tmp_path / "back")
    expected = contents(shards)
    del expected["note.txt"]
    assert contents(tmp_path / "back") == expected


def test_what_is_said(shards):
    """inspect names the files; metadata counts where files agree."""
    (found,) = json.loads(done("inspect", "--json", shards).out)["results"]
    assert (found["layout"], len(found["files"])) == ("hf", 4)
    assert found["metadata"] == {"model": "m"}
    assert "layers 0:4" in done("inspect", shards).out
    done("stats", shards, "-p", "int8")


def test_slices_and_other_layouts_are_one_file(shards, tmp_path):
    """A cut keeps the files that it takes from; another layout is one file."""
    done("compress", shards, "-q")
    box = tmp_path / "dump.kvq"
    done("decompress", box, "--layers", "0:1", "-o", tmp_path / "cut")
    assert list(contents(tmp_path / "cut")) == ["kv-00000.safetensors"]
    done("decompress", box, "--layout", "canonical", "-o", tmp_path / "one")
    assert "layers 0:4" in done("inspect", tmp_path / "one").out


def test_lossy_values_keep_the_files(shards, tmp_path):
    """int8 changes rows only: headers, index and note are as they were."""
    done("compress", shards, "-p", "int8", "-q")
    done("decompress", tmp_path / "dump.kvq", "-o", tmp_path / "back")
    found, expected = contents(tmp_path / "back"), contents(shards)
    assert found.keys() == expected.keys()
    for name, data in expected.items():
        assert len(found[name]) == len(data)
        size = 8 + int.from_bytes(data[:8], "little") if name.endswith("safetensors") else len(data)
        assert found[name][:size] == data[:size]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{}", "E201"),
        ("[]", "E201"),
        ('{"weight_map": {}}', "E201"),
        ('{"weight_map": {"a": 1}}', "E201"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "E201"),
        ('{"weight_map": {"a": "x.bin"}}', "E201"),
        ("{", "E201"),
        ('{"weight_map": {"a": "gone.safetensors"}}', "E601"),
    ],
)
def test_a_bad_index(tmp_path, text, error):
    """An index that names nothing that can be read is refused in one line."""
    index = tmp_path / "kv.index.json"
    index.write_text(text)
    with left_alone(tmp_path):
        code = 6 if error == "E601" else 3
        refused(kvq("compress", index, "-o", tmp_path / "x.kvq"), code, error)


def test_captures_that_contradict_each_other(shards, tmp_path):
    """Two captures in a folder hold the same layers: neither is taken for the other."""
    (shards / "zz.safetensors").write_bytes(per_layer_capture(tokens=(9,), heads=2, channels=8))
    with left_alone(tmp_path):
        ran = kvq("compress", shards, "-o", tmp_path / "x.kvq")
        refused(ran, 3, "E202", "holds already", "zz.safetensors", "one capture")


def test_damage_and_change(shards, tmp_path):
    """A shard that is cut off, and one that differs from the container's, are named."""
    done("compress", shards, "-q")
    shard = shards / "kv-00001.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    ran = kvq("verify", tmp_path / "dump.kvq", "--against", shards)
    assert (ran.code, "E805" in ran.err) == (1, True)
    shard.write_bytes(data[:-1])
    with left_alone(tmp_path):
        ran = kvq("compress", shards, "-o", tmp_path / "x.kvq")
        refused(ran, 3, "E201", "kv-00001.safetensors")


def test_nothing_is_left_of_a_failed_restore(shards, tmp_path):
    """A container that is damaged leaves no folder, and not the old one changed."""
    done("compress", shards, "-q")
    box = tmp_path / "dump.kvq"
    data = bytearray(box.read_bytes())
    data[len(data) // 2] ^= 1
    box.write_bytes(data)
    with left_alone(tmp_path):
        assert kvq("decompress", box, "-o", tmp_path / "back").code == 3
        assert kvq("decompress", box, "-f").code == 3
    refused(kvq("decompress", box, "-o", "-"), 5, "E105", "folder")


def test_more_files_than_are_allowed_at_first(tmp_path):
    """The soft limit of open files is raised for a folder of many, as far as the hard one goes."""
    folder = tmp_path / "many"
    folder.mkdir()
    for layer in range(300):
        rows = {f"layers.{layer}.{role}": ("F16", (1, 1, 1, 4), bytes(8)) for role in "kv"}
        named = {name.replace(".k", ".key").replace(".v", ".value"): rows[name] for name in rows}
        (folder / f"{layer:03}.safetensors").write_bytes(safetensors_bytes(named))
    kvq = f"{sys.executable} -m kvq_cli"
    script = f"ulimit -Sn 128 && {kvq} compress many && {kvq} decompress many.kvq -o back"
    ran = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert contents(tmp_path / "back") == contents(folder)


@pytest.mark.parametrize("name", ["a\\b", "a\x1b", "a\0", "n" * 600])
def test_an_index_names_what_a_folder_may_hold(shards, tmp_path, name):
    """Names that no folder's file may have are refused, and never opened."""
    index = shards / "kv.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"layers.0.key": f"{name}.safetensors"}}))
    with left_alone(tmp_path):
        refused(kvq("compress", index), 4, "E204", "no file name that kvq keeps")

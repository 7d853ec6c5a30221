"""Files of other tools: told, refused, and made captures of as docs/other-tools.md says."""

from __future__ import annotations

import gzip
import io
import json
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from support.captures import canonical_capture, safetensors_bytes
from support.shell import done, error_line, kvq, left_alone, process, refused

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "formats" / "vectors" / "capture" / "foreign.json").read_text())
RECIPES = dict(
    re.findall(
        r"```python file=(\w+)\n(.*?)```", (ROOT / "docs" / "other-tools.md").read_text(), re.DOTALL
    )
)
FIRST = {case["kind"]: case for case in reversed(VECTORS["cases"])}
KINDS = [kind for kind in FIRST if kind not in ("safetensors", None)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_says_the_same(kind, tmp_path):
    """inspect, compress and stats: one line, one sentence, exit code 4, nothing written."""
    path = tmp_path / FIRST[kind]["file"]
    path.write_bytes(bytes.fromhex(FIRST[kind]["first_hex"]) + bytes(range(256)) * 40)
    capture = tmp_path / "cache"
    capture.write_bytes(canonical_capture())
    with left_alone(tmp_path):
        commands = (["inspect", path], ["compress", path], ["stats", path])
        lines = {refused(kvq(*each), 4, "E209", str(path)) for each in commands}
        refused(kvq("stats", capture, "--queries", path), 4, "E209")
        result = kvq("inspect", path, "--json").result
    assert len(lines) == 1
    assert result["error"]["exit_code"] == 4


def test_weights_are_no_cache(tmp_path):
    """A checkpoint is safetensors and still no capture: all commands say so."""
    path = tmp_path / "model.safetensors"
    names = VECTORS["weights"][0]["tensors"]
    path.write_bytes(safetensors_bytes({name: ("F16", (2, 2), bytes(8)) for name in names}))
    with left_alone(tmp_path):
        for command in ("inspect", "compress", "stats"):
            refused(kvq(command, path), 4, "E209", names[0])
        refused(kvq("compress", path, "--layout", "canonical"), 4, "E209", names[0])
        refused(kvq("compress", path, "--layout", "none"), 2, "E101")


def test_a_capture_with_weights_beside_it_is_one(tmp_path):
    """Keys and values that a layout takes are a cache, whatever else the file holds."""
    path = tmp_path / "cache.safetensors"
    shape, data = (1, 1, 2, 5, 8), bytes(160)
    tensors = {"key": ("F16", shape, data), "value": ("F16", shape, data)}
    path.write_bytes(safetensors_bytes({**tensors, "norm.weight": ("F16", (4,), bytes(8))}))
    assert done("inspect", path, "--json").result["layout"] == "canonical"


def test_a_pipe_is_looked_at_too(tmp_path):
    """What comes through a pipe has no name, but first bytes; unpacked, it is a capture."""
    packed = gzip.compress(canonical_capture(), mtime=0)
    ran = process("compress", "-", "-o", tmp_path / "out", stdin=packed)
    assert (ran.code, error_line(ran)[0]) == (4, "E209")
    assert "gzip -dc" in ran.err
    ran = process("compress", "-", "-o", tmp_path / "out", stdin=gzip.decompress(packed))
    assert ran.code == 0


def converted(name, folder, monkeypatch, **lengths):
    """What a recipe of the page makes of the files in a folder."""
    monkeypatch.chdir(folder)
    code = RECIPES[name]
    for word, length in lengths.items():
        code = re.sub(rf"\b{word}(, \w+)* = .*", f"layers, heads, channels = {length}", code)
    exec(code, {"np": np, "save_file": save_file})  # noqa: S102 - the page's own lines
    done("compress", "cache.safetensors")
    return load_file("cache.safetensors")


def rows(*shape):
    return np.random.default_rng(7).standard_normal(shape).astype(np.float16)


def test_numpy_becomes_a_capture(tmp_path, monkeypatch):
    """An archive of keys and values."""
    key, value = rows(1, 2, 3, 5, 8), rows(1, 2, 3, 5, 8)
    np.savez(tmp_path / "cache.npz", key=key, value=value)
    refused(kvq("inspect", tmp_path / "cache.npz"), 4, "E209", "numpy.load")
    found = converted("numpy", tmp_path, monkeypatch)
    np.testing.assert_array_equal(found["key"], key)


@pytest.mark.parametrize(
    ("tool", "name"),
    [("lmcache", "model@1@0@1f2e@half.pt"), ("sglang", "0123abcd_model_0_1.bin")],
)
def test_raw_bytes_become_a_capture(tool, name, tmp_path, monkeypatch):
    """Chunks and pages without a header, once their lengths are told."""
    whole = rows(2, 4, 6, 3, 8)  # role, layer, token, head, channel
    (tmp_path / name).write_bytes(whole.tobytes())
    refused(kvq("inspect", tmp_path / name), 4, "E209", "docs/other-tools.md")
    found = converted(tool, tmp_path, monkeypatch, layers="4, 3, 8")
    np.testing.assert_array_equal(found["key"], whole[0].transpose(0, 2, 1, 3))
    np.testing.assert_array_equal(found["value"], whole[1].transpose(0, 2, 1, 3))


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_slot_becomes_a_capture(transposed, tmp_path, monkeypatch):
    """A slot file of llama.cpp, values either way round."""
    layers, cells, heads, channels = 2, 5, 3, 8
    key, value = rows(layers, cells, heads, channels), rows(layers, cells, heads, channels) * 2
    out = io.BytesIO()
    out.write(struct.pack("<III2iII", 0x67677371, 3, 2, 9, 9, 1, cells))
    for cell in range(cells):
        out.write(struct.pack("<iIi", cell, 1, 0))
    out.write(struct.pack("<II", transposed, layers))
    for each in key:
        out.write(struct.pack("<iQ", 1, each[0].nbytes) + each.tobytes())
    for each in value:
        if transposed:
            out.write(struct.pack("<iII", 1, 2, heads * channels))
            out.write(each.reshape(cells, -1).T.tobytes())
        else:
            out.write(struct.pack("<iQ", 1, each[0].nbytes) + each.tobytes())
    (tmp_path / "slot.bin").write_bytes(out.getvalue())
    refused(kvq("inspect", tmp_path / "slot.bin"), 4, "E209", "llama.cpp")
    found = converted("llamacpp", tmp_path, monkeypatch, heads="0, 3, 8")
    for layer in range(layers):
        np.testing.assert_array_equal(found[f"layers.{layer}.key"], key[layer].transpose(1, 0, 2))
        wanted = value[layer].transpose(1, 0, 2)
        np.testing.assert_array_equal(found[f"layers.{layer}.value"], wanted)
    told = ["--expect", "engine=llama.cpp", "--expect", "rope_style=interleaved"]
    done("verify", "cache.safetensors.kvq", *told)

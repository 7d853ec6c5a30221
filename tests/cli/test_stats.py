"""Sizes are the file's own, and errors agree with a plain NumPy reference."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

EXTRAS = safetensors_bytes(
    {
        "key": ("F32", (2, 2, 3, 40, 8), kv_bits((2, 2, 3, 40, 8), "F32", 1).tobytes()),
        "value": ("BF16", (2, 2, 3, 40, 16), kv_bits((2, 2, 3, 40, 16), "BF16", 2).tobytes()),
        "positions": ("I64", (40,), bytes(320)),
        "empty": ("U8", (0,), b""),
    },
    {"model": "m"},
)
CAPTURES = {
    "canonical": canonical_capture(tokens=300, channels=16),
    "ragged": per_layer_capture(tokens=(40, 300), dtype="BF16"),
    "extras": EXTRAS,
    "keys": canonical_capture(roles=["key"], dtype="F32"),
    "carried": safetensors_bytes({"key": ("I8", (1, 1, 2, 5, 8), bytes(80))}),
}
# A lossy profile does not take the quantised keys of "carried".
CASES = [
    (capture, profile)
    for capture in CAPTURES
    for profile in ("lossless", "raw", "none", "int8", "split")
    if capture != "carried" or profile not in ("int8", "split")
]
SPLIT = {"first_tokens": 4, "last_tokens": 7, "heads": [[0, 1]]}


@pytest.mark.parametrize("storage", [[], ["--level", "19"], ["--align", "4096"]])
@pytest.mark.parametrize(("capture", "profile"), CASES)
def test_parts_sum_to_the_file(capture, profile, storage, tmp_path):
    """Every byte of the file is in exactly one part, whatever it holds and however it is stored."""
    path = tmp_path / "cache"
    path.write_bytes(CAPTURES[capture])
    if profile in ("split", "none"):
        value = {"schema": "kvq_profile_v1", "name": profile, "page_tokens": 32}
        value |= {"split": {"rules": [{"codec": "int8"}], "protected": SPLIT}}.get(
            profile, {"rules": [], "storage": {"entropy": "none"}}
        )
        (tmp_path / "p.json").write_text(json.dumps(value))
    done("compress", path, "-p", tmp_path / "p.json" if profile in ("split", "none") else profile)
    if storage:
        done("compress", path, "-f", *storage)
    size = (tmp_path / "cache.kvq").stat().st_size
    report = done("stats", tmp_path / "cache.kvq", "--json").result
    assert sum(report["parts"].values()) == report["file_bytes"] == size
    pages = sum(plane["stored"] for plane in report["planes"])
    assert pages == report["parts"].get("pages", 0)
    assert pages == sum(role["stored_bytes"] for role in report["roles"])
    assert pages == sum(layer["stored"] for layer in report["layers"])
    assert report["errors"] == []


def wide(data, name):
    """A tensor as float64."""
    size = 8 + int.from_bytes(data[:8], "little")
    entry = json.loads(data[8:size])[name]
    start, stop = (size + at for at in entry["data_offsets"])
    raw = data[start:stop]
    if entry["dtype"] == "BF16":
        raw = (np.frombuffer(raw, "<u2").astype("<u4") << 16).tobytes()
    word = "<f2" if entry["dtype"] == "F16" else "<f4"
    return np.frombuffer(raw, word).reshape(entry["shape"]).astype(np.float64)


def reference(before, after):
    error = before - after
    energy, lost = (before**2).sum(), (error**2).sum()
    rows = (before * after).sum(-1) / np.sqrt((before**2).sum(-1) * (after**2).sum(-1))
    return {
        "relative_mse": lost / energy,
        "mse": (error**2).mean(),
        "mae": np.abs(error).mean(),
        "max_error": np.abs(error).max(),
        "cosine": rows.mean(),
        "snr_db": 10 * np.log10(energy / lost),
    }


@pytest.mark.parametrize("dtype", ["F16", "BF16", "F32"])
def test_errors_agree_with_numpy(dtype, tmp_path):
    """Every metric, per role, layer and head, within 1e-6 of float64 NumPy on whole tensors."""
    data = canonical_capture(tokens=300, channels=16, heads=3, dtype=dtype)
    path = tmp_path / "cache"
    path.write_bytes(data)
    done("compress", path, "-p", "int8")
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    back = (tmp_path / "back").read_bytes()
    report = done("stats", f"{path}.kvq", "--against", path, "--json").result
    rows = {(row["role"], row["layer"], row["head"]): row for row in report["errors"]}
    assert len(rows) == len(report["errors"]) == 2 * (2 * 3 + 2 + 1)
    for (role, layer, head), row in rows.items():
        cut = (
            slice(None),
            slice(None) if layer is None else [layer],
            slice(None) if head is None else [head],
        )
        wanted = reference(wide(data, role)[cut], wide(back, role)[cut])
        for metric, number in wanted.items():
            # Six significant digits are told.
            assert row[metric] == pytest.approx(number, rel=1e-5), (role, layer, head, metric)
        assert abs(row["relative_mse"] - wanted["relative_mse"]) < 1e-6


def test_a_what_if_is_what_would_be(tmp_path):
    """stats CAPTURE --profile P says what compress and stats --against say, and writes nothing."""
    path = tmp_path / "cache"
    path.write_bytes(CAPTURES["extras"])
    with left_alone(tmp_path):
        guess = done("stats", path, "-p", "int8", "--json").result
    done("compress", path, "-p", "int8")
    truth = done("stats", f"{path}.kvq", "--against", path, "--json").result
    assert guess.pop("path") == str(path)
    assert truth.pop("path") == f"{path}.kvq"
    assert guess == truth


def test_a_wrong_capture(tmp_path):
    """Against a capture that the container does not come from: E805, exit code 1."""
    path, other = tmp_path / "cache", tmp_path / "other"
    path.write_bytes(canonical_capture(tokens=300))
    changed = bytearray(path.read_bytes())
    changed[-2] ^= 1
    done("compress", path)
    for data in (bytes(changed), canonical_capture(tokens=299), canonical_capture(layers=1)):
        other.write_bytes(data)
        ran = kvq("stats", f"{path}.kvq", "--against", other)
        assert (ran.code, "KVQ-E805" in ran.err) == (1, True)
    refused(kvq("stats", f"{path}.kvq", "-p", "int8"), 2, "E101")
    refused(kvq("stats", path, "--against", path), 2, "E101")


def test_nothing_lost_is_said(tmp_path):
    """A lossless container has errors of zero, cosine 1 and no SNR; missing figures are a dash."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture())
    done("compress", path)
    ran = done("stats", f"{path}.kvq", "--against", path, "--json")
    for row in ran.result["errors"]:
        assert (row["relative_mse"], row["max_error"], row["cosine"]) == (0, 0, 1)
        assert row["snr_db"] is None
    text = done("stats", f"{path}.kvq", "--against", path).out
    assert text[text.index("\nkey") :].split()[:5] == ["key", "all", "all", "0.0", "-"]


def test_signalling_nan_are_counted_quietly(tmp_path, recwarn):
    """Non-finite elements are counted, left out of every metric, and warn nobody."""
    shape = (1, 1, 2, 4, 8)
    bits = kv_bits(shape, "F32")
    bits[0, 0, 1, 2] = 0x7F800001
    path = tmp_path / "cache"
    path.write_bytes(safetensors_bytes({"key": ("F32", shape, bits.tobytes())}))
    report = done("stats", path, "-p", "int8", "--json").result
    rows = {row["head"]: row for row in report["errors"] if row["layer"] == 0}
    assert [rows[head]["non_finite"] for head in (0, 1)] == [0, 8]
    assert rows[1]["relative_mse"] == 0
    assert not recwarn


def test_csv(tmp_path):
    """--csv is a table a program can read: one header, a row a role, layer and head."""
    path = tmp_path / "cache"
    path.write_bytes(canonical_capture(tokens=40))
    done("compress", path, "-p", "int8")
    ran = done("stats", f"{path}.kvq", "--against", path, "--csv")
    rows = list(csv.DictReader(io.StringIO(ran.out)))
    report = done("stats", f"{path}.kvq", "--against", path, "--json").result
    assert len(rows) == len(report["errors"])
    for row, told in zip(rows, report["errors"], strict=True):
        assert float(row["relative_mse"]) == told["relative_mse"]
        assert row["role"] == told["role"]
    many = done("stats", f"{path}.kvq", f"{path}.kvq", "--against", path, "--csv").out
    assert many.count("relative_mse") == 1

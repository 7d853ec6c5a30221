"""Captures that are damaged, contradict themselves or cannot be quantised."""

from __future__ import annotations

import json

import numpy as np
import pytest

from support.captures import (
    canonical_capture,
    kv_bits,
    per_layer_capture,
    raw_safetensors,
    safetensors_bytes,
)
from support.shell import done, kvq, left_alone, refused

INT8_F16 = {
    "schema": "kvq_profile_v1",
    "name": "halves",
    "rules": [{"codec": {"name": "int8", "scale": "f16"}}],
}


def tensor(dtype="F16", shape=(1, 1, 2, 3, 4), span=(0, 48)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(span)}


def header(**tensors):
    return json.dumps(tensors)


TWICE = '{"key":' + json.dumps(tensor()) + ',"key":' + json.dumps(tensor()) + "}"
HOSTILE = {
    "text": (b"This is not a tensor file, it is a poem about one.", 3, "E201"),
    "empty": (b"", 3, "E201"),
    "short": (b"\x01\x02", 3, "E201"),
    "header-beyond-file": (raw_safetensors("{}", length=1 << 40), 3, "E201"),
    "header-beyond-limit": (raw_safetensors(b" " * ((8 << 20) + 8)), 7, "E207"),
    "not-json": (raw_safetensors("{]"), 3, "E201"),
    "not-an-object": (raw_safetensors("[1]"), 3, "E201"),
    "span": (raw_safetensors(header(key=tensor(span=(0, 40))), 40), 3, "E201"),
    "overlap": (
        raw_safetensors(header(key=tensor(), value=tensor(span=(24, 72))), 72),
        3,
        "E201",
    ),
    "hole": (raw_safetensors(header(key=tensor(), value=tensor(span=(64, 112))), 112), 3, "E201"),
    "rest": (raw_safetensors(header(key=tensor()), 49), 3, "E201"),
    "twice": (raw_safetensors(TWICE, 48), 3, "E201"),
    "unknown-dtype": (raw_safetensors(header(key=tensor("Q16")), 48), 4, "E203"),
    "no-layout": (raw_safetensors(header(weights=tensor()), 48), 4, "E204"),
    "no-tokens": (
        raw_safetensors(header(key=tensor(shape=(1, 1, 2, 0, 4), span=(0, 0))), 0),
        3,
        "E206",
    ),
    "huge-shape": (
        raw_safetensors(header(key=tensor(shape=(2**62, 2**62, 1, 1, 1), span=(0, 0))), 0),
        7,
        "E207",
    ),
    "deep": (raw_safetensors('{"key":' + "[" * 4000 + "]" * 4000 + "}"), 3, "E201"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_captures_are_refused(name, tmp_path):
    """One line with the file's name, the table's exit code, and nothing written."""
    data, code, error_id = HOSTILE[name]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(data)
    with left_alone(tmp_path):
        refused(kvq("compress", path), code, error_id, str(path))
        refused(kvq("stats", path), code, error_id, str(path))


def test_inspect_says_what_it_cannot_bind(tmp_path):
    """A valid safetensors file without keys and values is described, not refused."""
    path = tmp_path / "weights.safetensors"
    path.write_bytes(HOSTILE["no-layout"][0])
    ran = done("inspect", path)
    assert "not recognised" in ran.out
    assert "weights" in ran.out


def test_every_truncated_capture_is_refused(tmp_path):
    """Cut at every 64th byte, a capture is E201, also in front of inspect."""
    data = canonical_capture()
    path = tmp_path / "cut.safetensors"
    for size in range(0, len(data), 64):
        path.write_bytes(data[:size])
        with left_alone(tmp_path):
            refused(kvq("compress", path), 3, "E201")
            refused(kvq("inspect", path), 3, "E201")


@pytest.mark.parametrize("role", ["key", "value"])
def test_one_role_alone_is_carried(role, tmp_path):
    """Keys without values or the reverse: said on stderr, restored byte for byte."""
    data = canonical_capture(roles=[role])
    path = tmp_path / "half.safetensors"
    path.write_bytes(data)
    assert f"hold {role}s only" in done("compress", path).err
    path.unlink()
    done("decompress", f"{path}.kvq")
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    "value", [(2, 2, 5, 8), (1, 2, 6, 8), (1, 3, 5, 8)], ids=["batch", "tokens", "heads"]
)
def test_keys_and_values_that_contradict(value, tmp_path):
    """Batch, tokens and heads of a layer's keys and values agree, or the capture is refused."""
    shapes = {"layers.0.key": (1, 2, 5, 8), "layers.0.value": value}
    path = tmp_path / "odd.safetensors"
    path.write_bytes(
        safetensors_bytes(
            {name: ("F16", shape, kv_bits(shape).tobytes()) for name, shape in shapes.items()}
        )
    )
    with left_alone(tmp_path):
        refused(kvq("compress", path), 3, "E202", "layers.0", "layer 0")


@pytest.mark.parametrize("profile", ["lossless", "int8", "raw"])
def test_head_dim_and_dtype_may_differ(profile, tmp_path):
    """Keys and values of other channels and dtypes are legitimate, as latent attention has."""
    key, value = (1, 2, 2, 5, 24), (1, 2, 2, 5, 8)
    data = safetensors_bytes(
        {
            "key": ("BF16", key, kv_bits(key, "BF16").tobytes()),
            "value": ("F32", value, kv_bits(value, "F32").tobytes()),
        }
    )
    path = tmp_path / "mixed.safetensors"
    path.write_bytes(data)
    done("compress", path, "-p", profile)
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    back = (tmp_path / "back").read_bytes()
    assert len(back) == len(data)
    assert (back == data) == (profile != "int8")


def poisoned(head, word=0x7E00):
    """A capture of three heads; one element of `head` in layer 1's keys is not a number."""
    shape = (1, 2, 3, 9, 8)
    key, value = kv_bits(shape, seed=1), kv_bits(shape, seed=2)
    key[0, 1, head, 4, 5] = word
    tensors = {"key": ("F16", shape, key.tobytes()), "value": ("F16", shape, value.tobytes())}
    return safetensors_bytes(tensors), key, value


@pytest.mark.parametrize("word", [0x7E00, 0x7C00, 0xFC00, 0x7C01], ids=["nan", "inf", "-inf", "s"])
def test_non_finite_heads_stay_raw(word, tmp_path):
    """keep_raw: only the offending head is raw, says so, and comes back bit for bit."""
    data, key, _ = poisoned(1, word)
    path = tmp_path / "nan.safetensors"
    path.write_bytes(data)
    assert "1 non-finite" in done("compress", path, "-p", "int8").err
    pages = done("inspect", f"{path}.kvq", "--pages", "--json").result["pages"]
    layer = [page for page in pages if (page["role"], page["layer"]) == ("key", 1)]
    found = {tuple(page["heads"]): (page["codec"], page["reason"]) for page in layer}
    assert found[1,] == ("raw", "non-finite")
    assert {codec for heads, (codec, _) in found.items() if 1 not in heads} == {"int8"}
    assert {page["codec"] for page in pages if page["layer"] == 0} == {"int8"}
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    start = len(data) - 2 * key.nbytes
    back = np.frombuffer((tmp_path / "back").read_bytes()[start:], "<u2")[: key.size]
    np.testing.assert_array_equal(back.reshape(key.shape)[0, 1, 1], key[0, 1, 1])


def test_fail_closed_names_the_element(tmp_path):
    """fail_closed refuses and names tensor, layer, head and token; nothing is written."""
    path, profile = tmp_path / "nan.safetensors", tmp_path / "closed.json"
    path.write_bytes(poisoned(2)[0])
    profile.write_text(
        json.dumps(
            {"schema": "kvq_profile_v1", "name": "closed", "fallback": "fail_closed"}
            | {"rules": [{"codec": "int8"}]}
        )
    )
    with left_alone(tmp_path):
        ran = kvq("compress", path, "-p", profile)
        refused(ran, 1, "E501", '"key"', "layer 1", "head 2", "token 4", "channel 5")


def test_rows_too_large_for_half_scales(tmp_path):
    """A head that f16 scales cannot hold is raw for the reason `unsupported`, the others not."""
    shape = (1, 1, 2, 6, 8)
    key = kv_bits(shape, "F32").view("<f4")
    key[0, 0, 1, 3] = 1e30
    words = key.view("<u4")
    path, profile = tmp_path / "large.safetensors", tmp_path / "halves.json"
    path.write_bytes(
        safetensors_bytes(
            {"key": ("F32", shape, words.tobytes()), "value": ("F32", shape, words.tobytes())}
        )
    )
    profile.write_text(json.dumps(INT8_F16))
    assert "2 unsupported" in done("compress", path, "-p", profile).err
    pages = done("inspect", f"{path}.kvq", "--pages", "--json").result["pages"]
    reasons = {tuple(page["heads"]): page["reason"] for page in pages if page["role"] == "key"}
    assert reasons == {(0,): "none", (1,): "unsupported"}


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "U8"])
def test_dtypes_that_only_lossless_takes(dtype, tmp_path):
    """Quantised keys and values are carried bit for bit, and refused under a lossy codec."""
    shape = (1, 2, 2, 5, 8)
    data = safetensors_bytes({role: (dtype, shape, bytes(range(160))) for role in ("key", "value")})
    path = tmp_path / "bytes.safetensors"
    path.write_bytes(data)
    with left_alone(tmp_path):
        refused(kvq("compress", path, "-p", "int8"), 4, "E203", dtype)
    assert dtype in done("compress", path).err
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize("length", [0x7B20, 0x047B])
def test_a_header_length_that_looks_like_json(length, tmp_path):
    """A length whose bytes read as white space and a brace does not make a file a profile."""
    plain = per_layer_capture()
    end = 8 + int.from_bytes(plain[:8], "little")
    path = tmp_path / "brace.safetensors"
    path.write_bytes(raw_safetensors(plain[8:end].ljust(length), plain[end:]))
    assert done("inspect", path, "--json").result["kind"] == "capture"
    done("stats", path)


def test_a_capture_that_changes_while_it_is_read(tmp_path, monkeypatch):
    """A capture that another process writes to is E205, and there is no container."""
    from kvq_cli import pipeline

    path = tmp_path / "live.safetensors"
    path.write_bytes(canonical_capture())
    original = pipeline.write_container

    def meddled(*arguments, **options):
        end = original(*arguments, **options)
        with path.open("ab") as file:
            file.write(b"more")
        return end

    monkeypatch.setattr(pipeline, "write_container", meddled)
    refused(kvq("compress", path), 3, "E205")
    assert [each.name for each in tmp_path.iterdir()] == ["live.safetensors"]

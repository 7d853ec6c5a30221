"""decompress in part, in another layout, in another dtype, held against NumPy and safetensors."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from safetensors import safe_open

from support.captures import (
    canonical_capture,
    kv_bits,
    per_layer_capture,
    raw_safetensors,
    safetensors_bytes,
    seed_of,
)
from support.shell import done, kvq, left_alone, refused

TOKEN = {"codec": {"name": "int8", "axis": "token"}}
CHANNEL = {"codec": {"name": "int8", "axis": "channel"}}
SPLIT = {"first_tokens": 3, "last_tokens": 5, "heads": [[1, 2]], "layers": [[-1, None]]}
PROFILES = {
    "lossless": {"rules": [{"codec": "lossless"}]},
    "token": {"rules": [TOKEN]},
    "channel": {"rules": [CHANNEL]},
    "split": {"rules": [{"role": "key", **CHANNEL}, TOKEN], "protected": SPLIT},
}
CAPTURES = {
    "canonical": canonical_capture(layers=3, heads=3, tokens=21, channels=8, batch=2),
    "unbatched": canonical_capture(layers=3, heads=3, tokens=21, channels=8, batch=None),
    "hf": per_layer_capture(tokens=(21, 21, 21), heads=3),
    "ragged": per_layer_capture(tokens=(21, 12, 30), heads=3, spelling="layer_{layer}_{role}"),
}
# What is asked for, and the same as a NumPy index of every axis.
ROLES = [None, "key", "value"]
LAYERS = {None: slice(None), "1": [1], "0,-1": [0, 2], "1:": slice(1, None)}
HEADS = {None: slice(None), "2,0": [0, 2], "-1": [2]}
TOKENS = {
    None: slice(None),
    "0,5,7:9": [0, 5, 7, 8],
    "-4:": slice(-4, None),
    ":2": slice(2),
    "3:11": slice(3, 11),
}


def container(tmp_path, capture, profile):
    """A container with small pages, and the whole restore of it."""
    path = tmp_path / "cache.safetensors"
    path.write_bytes(capture)
    value = {"schema": "kvq_profile_v1", "name": "mine", "page_tokens": 8, **PROFILES[profile]}
    (tmp_path / "profile.json").write_text(json.dumps(value))
    done("compress", path, "-p", tmp_path / "profile.json")
    done("decompress", f"{path}.kvq", "-o", tmp_path / "whole")
    return f"{path}.kvq"


def tensors(path):
    """Names to bits, by the official package."""
    done("inspect", path)
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name).view("<u2") for name in file.keys()}  # noqa: SIM118


def options(**chosen):
    return [part for key, text in chosen.items() if text for part in (f"--{key}", text)]


def expected(whole, role, layers, heads, tokens):
    """What NumPy cuts out of the whole restore."""
    found = {}
    for name, bits in whole.items():
        mine = "key" if name.endswith("key") else "value"
        if role not in (None, mine):
            continue
        if name in ("key", "value"):
            lead = () if bits.ndim == 4 else (slice(None),)
            cut = bits[(*lead, layers)]
            found[name] = cut[..., heads, :, :][..., tokens, :]
        else:
            number = int("".join(filter(str.isdigit, name)))
            if number in np.arange(3)[layers]:
                found[name] = bits[:, heads][:, :, tokens]
    return found


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("capture", CAPTURES)
def test_slices_are_numpy_slices(capture, profile, tmp_path):
    """Every combination of --role, --layers, --heads and --tokens equals the slice of the whole."""
    source = container(tmp_path, CAPTURES[capture], profile)
    whole = tensors(tmp_path / "whole")
    if profile == "lossless":
        assert (tmp_path / "whole").read_bytes() == CAPTURES[capture]
    combinations = list(itertools.product(ROLES, LAYERS, HEADS, TOKENS))
    # An eighth of them in each of these sixteen tests: every combination is seen twice.
    at = 4 * list(CAPTURES).index(capture) + list(PROFILES).index(profile)
    for role, layers, heads, tokens in combinations[at % 8 :: 8]:
        arguments = options(role=role, layers=layers, heads=heads, tokens=tokens)
        done("decompress", source, "-f", "-q", "-T", "1", "-o", tmp_path / "part", *arguments)
        wanted = expected(whole, role, LAYERS[layers], HEADS[heads], TOKENS[tokens])
        found = tensors(tmp_path / "part")
        assert found.keys() == wanted.keys()
        for name, bits in wanted.items():
            np.testing.assert_array_equal(found[name], bits, err_msg=f"{arguments} {name}")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--tokens", "21"],
        ["--tokens", "-22"],
        ["--tokens", "30:40"],
        ["--tokens", "5:5"],
        ["--tokens", "x"],
        ["--tokens", ""],
        ["--tokens", "1,,2"],
        ["--tokens", "1:2:3"],
        ["--heads", "3"],
        ["--layers", "3"],
        ["--layers", "99999999999999"],
    ],
)
def test_choices_out_of_range(arguments, tmp_path):
    """A number that is not there is E101, and no file is left."""
    source = container(tmp_path, CAPTURES["canonical"], "lossless")
    with left_alone(tmp_path):
        refused(kvq("decompress", source, "-o", tmp_path / "part", *arguments), 2, "E101")


def test_nothing_is_no_slice(tmp_path):
    """A role or layer that the container lacks is E101, not an empty file."""
    path = tmp_path / "cache"
    shape = (1, 2, 5, 8)
    bits = kv_bits(shape).tobytes()
    path.write_bytes(
        safetensors_bytes({f"layers.{layer}.key": ("F16", shape, bits) for layer in (3, 7)})
    )
    done("compress", path)
    with left_alone(tmp_path):
        for arguments in (["--role", "value"], ["--layers", "0"], ["--layers", "4:7"]):
            ran = kvq("decompress", f"{path}.kvq", "-o", tmp_path / "part", *arguments)
            refused(ran, 2, "E101", "nothing is chosen")


def floats(path):
    """Names to float32 values, whatever the dtype."""
    raw = path.read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    found = {}
    for name, entry in json.loads(raw[8:size]).items():
        if name != "__metadata__":
            start, stop = (size + at for at in entry["data_offsets"])
            word = {"F16": "<u2", "BF16": "<u2", "F32": "<u4"}[entry["dtype"]]
            bits = np.frombuffer(raw[start:stop], word).reshape(entry["shape"])
            found[name] = entry["dtype"], widened(bits, entry["dtype"])
    return found


def widened(bits, dtype):
    if dtype == "F16":
        return bits.view("<f2").astype("<f4")
    return (bits.astype("<u4") << 16 if dtype == "BF16" else bits).view("<f4")


def narrowed(values, dtype):
    """float32 to a dtype and back, rounded half to even, by NumPy and by ml_dtypes."""
    if dtype == "BF16":
        import ml_dtypes

        return values.astype(ml_dtypes.bfloat16).astype("<f4")
    return values.astype("<f2" if dtype == "F16" else "<f4").astype("<f4")


@pytest.mark.parametrize("target", ["f16", "bf16", "f32"])
@pytest.mark.parametrize("source", ["F16", "BF16", "F32"])
@pytest.mark.parametrize("profile", ["lossless", "token", "channel"])
def test_dtypes(profile, source, target, tmp_path):
    """--dtype rounds the source's numbers once; what a lossy codec restores is as near."""
    data = canonical_capture(tokens=21, dtype=source)
    kvq_file = container(tmp_path, data, profile)
    done("decompress", kvq_file, "--dtype", target, "-o", tmp_path / "back")
    done("inspect", tmp_path / "back")
    whole, back = floats(tmp_path / "whole"), floats(tmp_path / "back")
    for name, (dtype, values) in back.items():
        assert dtype == target.upper()
        before = whole[name][1]
        if profile == "lossless":
            np.testing.assert_array_equal(values, narrowed(before, dtype))
        else:
            # The whole restore was rounded to the source dtype; one unit of either remains.
            step = np.abs(before) * 2.0**-7 + 1e-6
            assert (np.abs(values - before) <= step).all()


@pytest.mark.parametrize("profile", ["lossless", "token", "channel"])
def test_a_number_beyond_the_dtype(profile, tmp_path):
    """Overflow is E501 with the name of the file, exit code 1, and no output."""
    shape = (1, 1, 1, 9, 8)
    values = kv_bits(shape, "F32").view("<f4")
    values[0, 0, 0, 4, 2] = 1e6
    data = safetensors_bytes({"key": ("F32", shape, values.tobytes())})
    source = container(tmp_path, data, profile)
    with left_alone(tmp_path):
        ran = kvq("decompress", source, "--dtype", "f16", "-o", tmp_path / "back")
        refused(ran, 1, "E501", source, "F16")
    done("decompress", source, "--dtype", "bf16", "-o", tmp_path / "back")


def test_layouts_there_and_back(tmp_path):
    """canonical to per_layer to canonical: the same bytes of keys and values, others carried."""
    shape = (1, 3, 2, 5, 8)
    entries = {
        role: ("F16", shape, kv_bits(shape, seed=seed_of(role)).tobytes())
        for role in ("key", "value")
    }
    entries["positions"] = ("I64", (5,), bytes(range(40)))
    metadata = {"layout": "batch,layers,kv_heads,tokens,head_dim", "model": "m", "tokens": "5"}
    path = tmp_path / "cache"
    path.write_bytes(safetensors_bytes(entries, metadata))
    done("compress", path)
    for name in ("hf", "hf"):
        done("decompress", f"{path}.kvq", "--layout", name, "-f", "-o", tmp_path / "split")
        with safe_open(tmp_path / "split", framework="numpy") as file:
            assert file.metadata() == {"model": "m"}
            for layer in range(3):
                key = file.get_tensor(f"layers.{layer}.key").view("<u2")
                np.testing.assert_array_equal(key, kv_bits(shape)[:, layer])
            assert file.get_tensor("positions").tobytes() == bytes(range(40))
    assert done("inspect", tmp_path / "split", "--json").result["layout"] == "hf"
    done("compress", tmp_path / "split")
    done("decompress", tmp_path / "split.kvq", "--layout", "canonical", "-o", tmp_path / "again")
    again, before = tensors(tmp_path / "again"), tensors(path)
    assert again.keys() == before.keys()
    for name, bits in before.items():
        np.testing.assert_array_equal(again[name], bits)
    done("verify", f"{path}.kvq")


def test_slices_keep_stated_axes(tmp_path):
    """A slice of a capture that states its axes states them too, and reads back the same."""
    shape = (1, 9, 2, 8)
    bits = kv_bits(shape)
    names = [f"layers.{layer}.{role}" for layer in range(2) for role in ("key", "value")]
    layout = {"layout": "per layer: batch,tokens,kv_heads,head_dim"}
    path = tmp_path / "cache"
    path.write_bytes(
        safetensors_bytes({name: ("F16", shape, bits.tobytes()) for name in names}, layout)
    )
    done("compress", path)
    done("decompress", f"{path}.kvq", "--tokens", "2:7", "-o", tmp_path / "part")
    part = done("inspect", tmp_path / "part", "--json").result["parts"][0]["key"]
    assert (part["tokens"], part["kv_heads"]) == (5, 2)
    np.testing.assert_array_equal(tensors(tmp_path / "part")[names[0]], bits[:, 2:7])
    done("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "whole")
    part = done("inspect", tmp_path / "whole", "--json").result["parts"][0]["key"]
    assert (part["layers"], part["tokens"], part["kv_heads"]) == (2, 9, 2)
    key = tensors(tmp_path / "whole")["key"]
    np.testing.assert_array_equal(key[:, 0], bits.swapaxes(1, 2))


def layered(**layers):
    shape = (1, 2, 5, 8)
    return safetensors_bytes(
        {
            f"layers.{layer}.{role}": ("F16", shape, kv_bits(shape, seed=layer).tobytes())
            for role, numbers in layers.items()
            for layer in numbers
        }
    )


def test_canonical_remembers_which_layers(tmp_path):
    """Layers with gaps keep their numbers in the metadata of a canonical file."""
    path = tmp_path / "cache"
    path.write_bytes(layered(key=(3, 7), value=(3, 7)))
    done("compress", path)
    done("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "whole")
    assert done("inspect", tmp_path / "whole", "--json").result["metadata"] == {
        "layer_indices": "[3,7]"
    }


def test_canonical_is_refused_where_it_would_lie(tmp_path):
    """Ragged layers, or roles with different layers, cannot be one tensor a role."""
    for data in (layered(key=(0, 1), value=(1,)), CAPTURES["ragged"]):
        path = tmp_path / "cache"
        path.write_bytes(data)
        done("compress", path, "-f")
        with left_alone(tmp_path):
            ran = kvq("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "x")
            refused(ran, 2, "E101", "--layers")


def test_a_layout_that_would_be_ambiguous(tmp_path):
    """Tensors that are carried along must not make the new file unreadable."""
    shape = (1, 2, 5, 8)
    entries = {
        f"layers.{layer}.{role}": (dtype, shape, bytes(80 * size))
        for layer, dtype, size in ((0, "F16", 2), (1, "I8", 1))
        for role in ("key", "value")
    }
    path = tmp_path / "cache"
    path.write_bytes(safetensors_bytes(entries))
    done("compress", path)
    with left_alone(tmp_path):
        ran = kvq("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "x")
        refused(ran, 2, "E101", "canonical, hf")
    all_tokens = ["--tokens", ":", "--layout", "canonical"]
    done("decompress", f"{path}.kvq", *all_tokens, "-o", tmp_path / "x")
    done("inspect", tmp_path / "x")


def test_an_odd_header_is_restored_verbatim(tmp_path):
    """A header of odd length, order and spacing comes back byte for byte."""
    text = '{ "value":{"shape":[1,1,1,2,4],"dtype":"F16","data_offsets":[0,16]} , "key":'
    text += '{"dtype":"F16","data_offsets":[16,32],"shape":[1,1,1,2,4]}}  \n'
    data = raw_safetensors(text, bytes(range(32)))
    path = tmp_path / "cache"
    path.write_bytes(data)
    done("compress", path)
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data

"""Prompt caches of mlx-lm through the command line: there and back, cut, turned into others."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors import safe_open

from support.captures import canonical_capture, kv_bits, per_layer_capture, safetensors_bytes
from support.prompt_caches import layer, new_cache, old_cache, other, quantised, rows, scalar
from support.shell import done, kvq, left_alone, process, refused

GENERATIONS = {"mlx": new_cache, "mlx-0.31": old_cache}
TOLD = {"model": "m", "rope_state": "post"}
EVERY = {
    "padded": new_cache([layer(5, room=8), layer(5, room=8)], TOLD),
    "dirty": new_cache([layer(5, room=8, behind=1)]),
    "old": old_cache([layer(5)] * 3, TOLD),
    "quantised": new_cache([quantised(5)] * 2),
    "old-quantised": old_cache([quantised(5)] * 2),
    "window": new_cache([layer(6, kind="RotatingKVCache", numbers=(90, 4, 6, 5)), layer(90)]),
    "mixed": new_cache(
        [other("ArraysCache", {"0.0": ("F32", (1, 3, 4), bytes(48))}), layer(5, room=256)]
    ),
}


def source(tmp_path, data, *arguments):
    path = tmp_path / "cache.safetensors"
    path.write_bytes(data)
    done("compress", path, "-f", *arguments)
    return f"{path}.kvq"


def restored(box, *arguments):
    """The tensors of a restored file as bits, and its metadata, by the official package."""
    target = f"{box}.back"
    done("decompress", box, "-f", "-o", target, *arguments)
    with safe_open(target, framework="numpy") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return {name: bits(array) for name, array in found.items()}, file.metadata()


def bits(array):
    return array.view(f"<u{array.itemsize}")


def layout_of(path):
    return done("inspect", path, "--json").result["layout"]


@pytest.mark.parametrize("name", EVERY)
def test_lossless(name, tmp_path):
    """The restored file is the original, whatever its classes, and verify holds them together."""
    box = source(tmp_path, EVERY[name])
    done("decompress", box, "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == EVERY[name]
    done("verify", box, "--against", tmp_path / "cache.safetensors")


@pytest.mark.parametrize("name", ["quantised", "old-quantised"])
def test_a_second_lossy_pass_is_refused(name, tmp_path):
    """One clear sentence, and no file; lossless is told of in a note."""
    path = tmp_path / "cache"
    path.write_bytes(EVERY[name])
    with left_alone(tmp_path):
        ran = kvq("compress", path, "-p", "int8")
        refused(ran, 4, "E204", "only a lossless profile", "quantised already")
    assert "4 bits, groups of 32 channels" in done("inspect", path).out


def test_padding_comes_back_as_zeros(tmp_path):
    """A lossy codec sees the tokens that count, and restores zeros behind them."""
    told = [layer(20, room=256), layer(20, room=256)]
    box = source(tmp_path, new_cache(told), "-p", "int8")
    back, metadata = restored(box)
    assert metadata["1.1"] == "KVCache"
    for number in range(2):
        for place, role in enumerate(("key", "value")):
            found, before = back[f"{number}.{place}"], rows(told[number], role, number)
            assert found.shape == before.shape
            assert not found[:, :, 20:].any()
            close = np.abs(found.view("<f2") - before.view("<f2").astype("f4"))
            assert close.max() < 0.2
        assert back[f"{number}.2"] == 20
    report = done("inspect", box, "--json").result
    assert report["parts"][0]["tokens"] == 20


def test_padding_through_a_pipe(tmp_path):
    """What a pipe gets is what a file gets, zeros and all."""
    box = source(tmp_path, EVERY["padded"])
    assert process("decompress", box, "-o", "-").out == EVERY["padded"]


def test_canonical_there_and_back(tmp_path):
    """mlx to canonical to mlx: the same tensors and metadata, but for who wrote the header."""
    told = [layer(200, room=256, dtype="F32") for _ in range(11)]
    before = new_cache(told, TOLD)
    box = source(tmp_path, before)
    done("decompress", box, "--layout", "canonical", "-o", tmp_path / "canonical")
    with safe_open(tmp_path / "canonical", framework="numpy") as file:
        assert sorted(file.keys()) == ["key", "value"]
        assert file.metadata() == TOLD
        key = file.get_tensor("key")
        assert np.array_equal(bits(key)[0, 10], rows(told[10], "key", 10)[0, :, :200])
    done("compress", tmp_path / "canonical")
    back, metadata = restored(tmp_path / "canonical.kvq", "--layout", "mlx")
    (tmp_path / "before").write_bytes(before)
    with safe_open(tmp_path / "before", framework="numpy") as file:
        assert back.keys() == set(file.keys())
        assert metadata == file.metadata()
        for name, found in back.items():
            array = bits(file.get_tensor(name))
            assert found.dtype == array.dtype
            assert np.array_equal(found, array)


@pytest.mark.parametrize("target", ["canonical", "hf", "mlx", "mlx-0.31"])
@pytest.mark.parametrize("name", GENERATIONS)
def test_every_layout_from_every_generation(name, target, tmp_path):
    """The layout is the one that was named, and a way back gives the same tensors."""
    before = GENERATIONS[name]([layer(256)] * 3, TOLD)
    box = source(tmp_path, before)
    first, _ = restored(box, "--layout", name)
    done("decompress", box, "--layout", target, "-o", tmp_path / "other")
    assert layout_of(tmp_path / "other") == target
    done("compress", tmp_path / "other")
    back, metadata = restored(tmp_path / "other.kvq", "--layout", name)
    assert back.keys() == first.keys()
    assert all(np.array_equal(back[each], first[each]) for each in back)
    assert {key: text for key, text in metadata.items() if "m" in key} == {
        ("0." if name == "mlx" else "1.") + "model": "m"
    }


def test_canonical_becomes_a_cache(tmp_path):
    """Scalars, classes and metadata are what mlx-lm 0.32 looks for; room is a multiple of 256."""
    data = canonical_capture(layers=2, tokens=257, metadata={"model": "m", "layout": "any"})
    box = source(tmp_path, data)
    back, metadata = restored(box, "--layout", "mlx")
    assert metadata == {
        "0.model": "m",
        "1.0": "KVCache",
        "1.1": "KVCache",
        "2.0": "",
        "2.1.0": "0.2",
        "2.1.1": "scalar",
        "2.2.0": "1.2",
        "2.2.1": "scalar",
    }
    assert sorted(back) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    assert back["1.0"].shape == (1, 2, 512, 8)
    assert np.array_equal(back["1.0"][0, :, :257], kv_bits((1, 2, 2, 257, 8))[0, 1])
    assert not back["1.0"][0, :, 257:].any()
    assert (back["0.2"].dtype, back["0.2"].shape, int(back["0.2"])) == ("<u4", (), 257)
    _, metadata = restored(box, "--layout", "mlx-0.31")
    assert metadata == {"0.0": "", "0.1": "", "1.model": "m", "2.0": "KVCache", "2.1": "KVCache"}


@pytest.mark.parametrize("name", GENERATIONS)
def test_slices(name, tmp_path):
    """A slice is a cache of its own generation: layers from 0, an offset of its own tokens."""
    told = [layer(20, channels=4) for _ in range(4)]
    box = source(tmp_path, GENERATIONS[name](told, TOLD))
    arguments = ["--layers", "1,3", "--heads", "1", "--tokens", "0,5:9"]
    back, metadata = restored(box, *arguments)
    user, classes = ("0.", "1.") if name == "mlx" else ("1.", "2.")
    assert json.loads(metadata[f"{user}layer_indices"]) == [1, 3]
    assert metadata[f"{user}model"] == "m"
    assert metadata[f"{classes}1"] == "KVCache"
    assert f"{classes}2" not in metadata
    for at, number in enumerate((1, 3)):
        for place, role in enumerate(("key", "value")):
            wanted = rows(told[number], role, number)[:, [1]][:, :, [0, 5, 6, 7, 8]]
            assert np.array_equal(back[f"{at}.{place}"][:, :, :5], wanted)
        if name == "mlx":
            assert back[f"{at}.2"] == 5
    assert layout_of(f"{box}.back") == name


def test_another_dtype(tmp_path):
    """Room, offsets and metadata stay; the numbers are narrowed."""
    box = source(tmp_path, EVERY["padded"])
    back, metadata = restored(box, "--dtype", "f32")
    assert metadata["0.model"] == "m"
    assert back["0.0"].shape == (1, 2, 256, 8)
    before = rows(layer(5, room=8), "key", 0)[:, :, :5]
    assert np.array_equal(back["0.0"][:, :, :5].view("<f4"), before.view("<f2").astype("<f4"))
    assert back["0.2"] == 5


def test_layers_of_another_kind_have_no_place(tmp_path):
    """They are left out when asked; without a word nothing is lost."""
    box = source(tmp_path, EVERY["mixed"])
    with left_alone(tmp_path):
        for arguments in (["--dtype", "f32"], ["--layout", "mlx"], ["--layout", "mlx-0.31"]):
            ran = kvq("decompress", box, "-o", tmp_path / "x", *arguments)
            refused(ran, 2, "E101", 'such as "0.0.0"', "--tokens :")
    back, metadata = restored(box, "--layout", "mlx", "--tokens", ":")
    assert sorted(back) == ["0.0", "0.1", "0.2"]
    assert metadata["0.layer_indices"] == "[1]"
    back, _ = restored(box, "--layout", "hf")
    assert sorted(back) == ["0.0.0", "layers.1.key", "layers.1.value"]


def test_positions_have_no_place(tmp_path):
    """mlx-lm takes every tensor for a layer's state: others are refused, or left out."""
    shape = (1, 1, 2, 5, 8)
    entries = {role: ("F16", shape, bytes(160)) for role in ("key", "value")}
    box = source(tmp_path, safetensors_bytes({**entries, "positions": scalar(1)}))
    ran = kvq("decompress", box, "--layout", "mlx", "-o", tmp_path / "x")
    refused(ran, 2, "E101", 'such as "positions"')
    back, _ = restored(box, "--layout", "mlx", "--tokens", ":")
    assert sorted(back) == ["0.0", "0.1", "0.2"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (per_layer_capture(tokens=(5, 9)), "layers hold 5 to 9"),
        (canonical_capture(roles=["key"]), "needs keys and values of each layer"),
        (EVERY["window"], "layers hold 6 to 90"),
    ],
)
def test_what_mlx_cannot_hold(data, word, tmp_path):
    """Layers of unlike length, or of one role, are refused with the layouts that can."""
    box = source(tmp_path, data)
    with left_alone(tmp_path):
        ran = kvq("decompress", box, "--layout", "mlx", "-o", tmp_path / "x")
        refused(ran, 2, "E101", word, "hf")
    done("decompress", box, "--layout", "hf", "-o", tmp_path / "x")


@pytest.mark.parametrize("name", GENERATIONS)
def test_segments(name, tmp_path):
    """A cache that grew is stored behind what was stored of it, and joined again."""
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    whole = rows(layer(27), "key", 0)
    for path, count in zip(paths, (20, 27), strict=True):
        told = [layer(count, room=256 if name == "mlx" else None)]
        arrays = [rows(layer(27), role, 0)[:, :, :count] for role in ("key", "value")]
        room = told[0]["shape"][2] - count
        filled = [np.pad(each, ((0, 0), (0, 0), (0, room), (0, 0))) for each in arrays]
        more = {f"0.{at}": ("F16", each.shape, each.tobytes()) for at, each in enumerate(filled)}
        path.write_bytes(GENERATIONS[name](told, TOLD, more))
    done("compress", paths[0])
    done("compress", paths[1], "--full", "--continues", f"{paths[0]}.kvq")
    boxes = [f"{path}.kvq" for path in paths]
    _, metadata = restored(boxes[1])
    assert metadata == TOLD
    done("decompress", *boxes, "-f", "-o", tmp_path / "joined")
    assert layout_of(tmp_path / "joined") == name
    with safe_open(tmp_path / "joined", framework="numpy") as file:
        assert np.array_equal(bits(file.get_tensor("0.0"))[:, :, :27], whole)
        assert name != "mlx" or file.get_tensor("0.2") == 27


def test_long_metadata_is_not_told_whole(tmp_path):
    """inspect says how many lines it leaves out; the report has all."""
    tensors = {role: ("F16", (1, 1, 1, 4), bytes(8)) for role in ("key", "value")}
    told = {f"note{at:03}": "x" for at in range(40)}
    (tmp_path / "a").write_bytes(safetensors_bytes(tensors, told))
    lines = done("inspect", tmp_path / "a").out.splitlines()
    assert sum(line.startswith("  note0") for line in lines) == 32
    assert any("8 more, which --json lists" in line for line in lines)
    assert done("inspect", "--json", tmp_path / "a").result["metadata"] == told

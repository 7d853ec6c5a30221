"""Captures of any names and axes through a layout map, and odd captures that are told plainly."""

from __future__ import annotations

import json

import numpy as np
import pytest

from support.captures import kv_bits, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

LAYERS, HEADS, TOKENS, CHANNELS = 3, 4, 21, 16
LENGTHS = {"B": 1, "L": LAYERS, "H": HEADS, "T": TOKENS, "D": CHANNELS, "R": 2}
SPLIT = {"k": "key", "v": "value"}
ORDER = "RLBHTD"


def whole(dtype="F16"):
    """All rows of a cache, as R, L, B, H, T, D."""
    return kv_bits([LENGTHS[letter] for letter in ORDER], dtype)


def laid(bits, axes):
    """The rows in another order of axes, several of which may share a dimension."""
    letters = axes.replace(",", "")
    gone = tuple(at for at, letter in enumerate(ORDER) if letter not in letters)
    left = [letter for letter in ORDER if letter in letters]
    turned = bits.squeeze(gone).transpose([left.index(letter) for letter in letters])
    groups = axes.split(",") if "," in axes else axes
    return turned.reshape([int(np.prod([LENGTHS[each] for each in group])) for group in groups])


def entry(bits, dtype="F16"):
    return (dtype, bits.shape, np.ascontiguousarray(bits).tobytes())


def per_layer(spelling, axes):
    """Tensors of one layer and role each."""
    rows = whole()
    return {
        spelling.format(n=layer, r="kv"[role]): entry(
            laid(rows[role : role + 1, layer:][:, :1], axes)
        )
        for layer in range(LAYERS)
        for role in range(2)
    }


def per_head():
    rows = whole()
    return {
        f"model.layers.{layer}.head.{head}.{'kv'[role]}": entry(rows[role, layer, 0, head])
        for layer in range(LAYERS)
        for head in reversed(range(HEADS))
        for role in range(2)
    }


def both(spelling, axes):
    rows = whole()
    return {
        spelling.format(n=layer): entry(laid(rows[:, layer : layer + 1], axes))
        for layer in range(LAYERS)
    }


BY_ROLE = {"roles": SPLIT}
CAPTURES = {
    "heads-tokens": (
        per_layer("blk.{n}.{r}_cache", "HTD"),
        {"name": r"blk\.(?P<layer>\d+)\.(?P<role>k|v)_cache", "axes": "HTD", **BY_ROLE},
    ),
    "tokens-heads": (
        per_layer("cache_{r}_{n}", "BTHD"),
        {"name": r"cache_(?P<role>k|v)_(?P<layer>\d+)", "axes": "BTHD", **BY_ROLE},
    ),
    "flat": (
        per_layer("{n}{r}", "T,HD"),
        {
            "name": r"(?P<layer>\d)(?P<role>\w)",
            "axes": "T,HD",
            "lengths": {"H": HEADS},
            **BY_ROLE,
        },
    ),
    "channels-first": (
        per_layer("m.{n}.{r}", "HDT"),
        {"name": r"m\.(?P<layer>\d+)\.(?P<role>k|v)", "axes": "HDT", **BY_ROLE},
    ),
    "both": (
        both("kv.{n}", "RBHTD"),
        {"name": r"kv\.(?P<layer>\d+)", "role": "both", "axes": "RBHTD"},
    ),
    "halves": (
        both("kv.{n}", "T,H,RD"),
        {"name": r"kv\.(?P<layer>\d+)", "role": "both", "axes": "T,H,RD"},
    ),
    "one-tensor": (
        {"cache": entry(laid(whole(), "LRBHTD"))},
        {"name": "cache", "role": "both", "axes": "LRBHTD"},
    ),
    "heads-apart": (
        per_head(),
        {
            "name": r"model\.layers\.(?P<layer>\d+)\.head\.(?P<head>\d+)\.(?P<role>k|v)",
            "axes": "TD",
            **BY_ROLE,
        },
    ),
}
each_capture = pytest.mark.parametrize("name", CAPTURES)


def write_map(folder, *rules, **members):
    path = folder / "map.json"
    path.write_text(json.dumps({"schema": "kvq_layout_map_v1", "rules": list(rules), **members}))
    return path


def write(folder, tensors, metadata=None):
    path = folder / "cache.safetensors"
    path.write_bytes(safetensors_bytes(tensors, metadata))
    return path


def keys_of(path):
    """The keys and values of a canonical file."""
    raw = path.read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:size])
    found = []
    for role in ("key", "value"):
        start, stop = header[role]["data_offsets"]
        bits = np.frombuffer(raw[size + start : size + stop], "<u2")
        found.append(bits.reshape(header[role]["shape"]))
    return np.stack(found)


@each_capture
def test_lossless_round_trip(name, tmp_path):
    """The source's bytes come back without the map, and as canonical the rows that were laid."""
    tensors, rule = CAPTURES[name]
    path = write(tmp_path, {**tensors, "ids": ("I64", (3,), bytes(24))})
    layout = write_map(tmp_path, rule, facts={"model": "mine", "rope_state": "post"})
    told = done("compress", path, "--layout", layout, "--json").result
    assert told["layout"] == "map"
    layout.unlink()
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == path.read_bytes()
    done("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "canonical")
    np.testing.assert_array_equal(keys_of(tmp_path / "canonical"), whole().swapaxes(1, 2))
    found = done("inspect", f"{path}.kvq", "--json").result
    assert (found["layout"], found["identity"]["model"]) == ("map", "mine")
    assert found["parts"][0]["key"]["shape"]["rope_state"] == "post_rope"


@each_capture
def test_a_container_is_held_against_its_capture_without_the_map(name, tmp_path):
    """verify and stats --against bind the capture by the container; another capture is told."""
    tensors, rule = CAPTURES[name]
    path = write(tmp_path, tensors)
    done("compress", path, "--layout", write_map(tmp_path, rule), "-p", "int8")
    done("verify", f"{path}.kvq", "--against", path)
    rows = done("stats", f"{path}.kvq", "--against", path, "--json").result
    assert rows["broken"] == []
    assert 0 < rows["errors"][-1]["relative_mse"] < 1e-3
    damaged = bytearray(path.read_bytes())
    damaged[-3] ^= 1
    path.write_bytes(damaged)
    other = kvq("verify", f"{path}.kvq", "--against", path)
    assert other.code == 1
    assert "E805" in other.err
    first, *_ = tensors
    path.write_bytes(safetensors_bytes({first if len(tensors) > 1 else "x": tensors[first]}))
    missing = kvq("verify", f"{path}.kvq", "--against", path)
    assert missing.code == 1
    assert "E805" in missing.err


@each_capture
def test_slices(name, tmp_path):
    """A part of the rows as canonical is that part of the whole; so it is in its own form."""
    tensors, rule = CAPTURES[name]
    path = write(tmp_path, tensors)
    done("compress", path, "--layout", write_map(tmp_path, rule))
    part = ["--layers", "1:", "--heads", "3,1", "--tokens", "2:9"]
    arguments = [*part, "--layout", "canonical", "-o", tmp_path / "part"]
    done("decompress", f"{path}.kvq", *arguments)
    wanted = whole()[:, 1:, :, [1, 3], 2:9].swapaxes(1, 2)
    np.testing.assert_array_equal(keys_of(tmp_path / "part"), wanted)
    own = kvq("decompress", f"{path}.kvq", "--tokens", "2:9", "-o", tmp_path / "own")
    if name == "heads-apart":
        refused(own, 2, "E101", "--layout")
        return
    assert own.code == 0, own.err
    done("compress", tmp_path / "own", "--layout", write_map(tmp_path, rule))
    done("decompress", tmp_path / "own.kvq", "--layout", "canonical", "-o", tmp_path / "again")
    np.testing.assert_array_equal(keys_of(tmp_path / "again"), whole()[..., 2:9, :].swapaxes(1, 2))


@each_capture
def test_a_proposal_fits(name, tmp_path):
    """What --guess prints is a map, and binds the rows where they lie."""
    tensors, rule = CAPTURES[name]
    path = write(tmp_path, tensors, {"tokens": str(TOKENS), "kv_heads": str(HEADS)})
    ran = done("inspect", "--guess", path)
    layout = tmp_path / "guessed.json"
    layout.write_text(ran.out)
    told = json.loads(ran.out)["rules"][0]
    assert told["axes"].replace(",", "") == rule["axes"].replace(",", "")
    assert done("inspect", layout, "--json").result["kind"] == "layout_map"
    assert done("inspect", "--guess", path, "--json").result["complete"]
    done("compress", path, "--layout", f"map:{layout}")
    done("decompress", f"{path}.kvq", "--layout", "canonical", "-o", tmp_path / "canonical")
    np.testing.assert_array_equal(keys_of(tmp_path / "canonical"), whole().swapaxes(1, 2))


def test_a_folder_by_the_names_of_its_files(tmp_path):
    """A file a layer: the layer is in the file's name; the folder comes back, and is verified."""
    folder = tmp_path / "dump"
    folder.mkdir()
    for layer in range(LAYERS):
        data = safetensors_bytes({"kv": entry(laid(whole()[:, layer : layer + 1], "RTHD"))})
        (folder / f"l{layer}.safetensors").write_bytes(data)
    file = r"(?:.*/)?l(?P<layer>\d+)\.safetensors"
    layout = write_map(tmp_path, {"name": "kv", "file": file, "role": "both", "axes": "RTHD"})
    assert json.loads(done("inspect", "--guess", folder).out)["rules"][0]["axes"] == "RTHD"
    done("compress", folder, "--layout", layout)
    done("verify", f"{folder}.kvq", "--against", folder)
    done("decompress", f"{folder}.kvq", "-o", tmp_path / "back")
    for path in folder.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


RULE = CAPTURES["heads-apart"][1]
NAME = "model.layers.{}.head.{}.{}"


def apart(*places, shape=(5, 8)):
    """Tensors of one head each: layer, head, role."""
    return {NAME.format(*place): entry(kv_bits(shape, seed=at)) for at, place in enumerate(places)}


ODD = {
    "missing-head": (apart((0, 0, "k"), (0, 2, "k")), RULE, 3, "E202", "heads 1 to 1"),
    "no-first-head": (apart((0, 1, "k")), RULE, 3, "E202", "heads 0 to 0"),
    "head-twice": (apart((0, 0, "k"), (0, "00", "k")), RULE, 3, "E202", "holds already"),
    "unlike-tokens": (
        apart((0, 0, "k")) | {NAME.format(0, 1, "k"): entry(kv_bits((6, 8)))},
        RULE,
        3,
        "E202",
        "differ in tokens",
    ),
    "unlike-dtypes": (
        apart((0, 0, "k")) | {NAME.format(0, 1, "k"): entry(kv_bits((5, 8), "F32"), "F32")},
        RULE,
        3,
        "E202",
        "differ in tokens, channels or dtype",
    ),
    "unlike-roles": (
        apart((0, 0, "k"), (0, 0, "v"), (0, 1, "v")),
        RULE,
        3,
        "E202",
        "1 heads in layer 0",
    ),
    "no-tokens": ({NAME.format(0, 0, "k"): ("F16", (0, 8), b"")}, RULE, 3, "E206", "nothing"),
    "no-layers": (
        {"cache": ("F16", (0, 2, 3, 5, 8), b"")},
        {"name": "cache", "role": "both", "axes": "LRHTD"},
        3,
        "E206",
        "nothing",
    ),
    "another-rank": (apart((0, 0, "k"), shape=(1, 5, 8)), RULE, 4, "E204", "/rules/0"),
    "fits-nothing": ({"x": entry(kv_bits((5, 8)))}, RULE, 4, "E204", "no layout of map"),
    "many-layers": (
        {"c": ("F16", (65537, 1, 1), bytes(2 * 65537))},
        {"name": "c", "role": "key", "axes": "LTD"},
        7,
        "E207",
        "layer 65536",
    ),
    "many-batches": (
        {"c": ("F16", (300, 300, 1, 1), bytes(2 * 90000))},
        {"name": "c", "role": "key", "axes": "BLTD"},
        7,
        "E207",
        "layers times batch",
    ),
}


@pytest.mark.parametrize("case", ODD.values(), ids=ODD)
def test_odd_captures_are_refused(case, tmp_path):
    """One line that names the tensor or says what is wrong, and no container."""
    tensors, rule, code, error, words = case
    path = write(tmp_path, tensors)
    layout = write_map(tmp_path, rule)
    with left_alone(tmp_path):
        refused(kvq("compress", path, "--layout", layout), code, error, words)


HELD = {
    "gaps-between-layers": apart(*((n, 0, r) for n in (3, 7, 40) for r in "kv")),
    "heads-in-odd-order": apart(*((0, h, r) for h in (2, 0, 3, 1) for r in "vk")),
    "unlike-head-counts": apart(*((n, h, r) for n in (0, 1) for h in range(n + 1) for r in "kv")),
    "keys-on-some-layers": apart((0, 0, "k"), (0, 0, "v"), (1, 0, "v"), (2, 0, "k")),
    "windows": {
        NAME.format(n, 0, r): entry(kv_bits((count, 8), seed=n))
        for n, count in enumerate((5, 12, 5))
        for r in "kv"
    },
    "unlike-dtypes-of-roles": {
        NAME.format(0, 0, "k"): entry(kv_bits((5, 8), "BF16"), "BF16"),
        NAME.format(0, 0, "v"): entry(kv_bits((5, 8), "F32"), "F32"),
    },
    "unlike-head-dims": {
        NAME.format(0, 0, "k"): entry(kv_bits((5, 24))),
        NAME.format(0, 0, "v"): entry(kv_bits((5, 16))),
    },
}


@pytest.mark.parametrize("profile", ["lossless", "int8"])
@pytest.mark.parametrize("tensors", HELD.values(), ids=HELD)
def test_odd_captures_that_are_held(tensors, profile, tmp_path):
    """What no rule forbids round-trips, and is verified against its capture."""
    path = write(tmp_path, tensors)
    done("compress", path, "--layout", write_map(tmp_path, RULE), "-p", profile)
    done("verify", f"{path}.kvq", "--against", path)
    done("decompress", f"{path}.kvq", "-o", tmp_path / "back")
    back = (tmp_path / "back").read_bytes()
    assert len(back) == path.stat().st_size
    assert (back == path.read_bytes()) or profile == "int8"
    done("decompress", f"{path}.kvq", "--layout", "hf", "-o", tmp_path / "hf")
    done("inspect", tmp_path / "hf")


def test_latents_as_keys_alone(tmp_path):
    """One tensor a layer of one row a token can be carried as keys, and says so."""
    tensors = {f"layers.{n}.latent": entry(kv_bits((9, 72), seed=n)) for n in range(2)}
    path = write(tmp_path, tensors)
    rule = {"name": r"layers\.(?P<layer>\d+)\.latent", "role": "key", "axes": "TD"}
    ran = done("compress", path, "--layout", write_map(tmp_path, rule), "-p", "int8")
    assert "2 of 2 layers hold keys only" in ran.err
    done("verify", f"{path}.kvq", "--against", path)


def test_rules_that_fit_nothing_are_told(tmp_path):
    """A second rule without a tensor is a note, not a refusal."""
    tensors, rule = CAPTURES["both"]
    layout = write_map(tmp_path, rule, {"name": "other", "role": "key", "axes": "TD"})
    assert "/rules/1" in done("compress", write(tmp_path, tensors), "--layout", layout).err


def test_the_file_counts_before_the_map(tmp_path):
    """Facts of the map fill in what metadata lacks; --meta counts before both."""
    tensors, rule = CAPTURES["both"]
    path = write(tmp_path, tensors, {"model": "told by the file"})
    layout = write_map(tmp_path, rule, facts={"model": "map", "engine": "map"})
    done("compress", path, "--layout", layout, "--meta", "tokenizer=user")
    identity = done("inspect", f"{path}.kvq", "--json").result["identity"]
    assert identity == {"model": "told by the file", "engine": "map", "tokenizer": "user"}


@pytest.mark.parametrize(
    ("text", "code", "error", "words"),
    [
        (None, 6, "E601", "layout map"),
        ("", 3, "E401", "layout map"),
        ("{}", 3, "E401", "schema"),
        ('{"schema": "kvq_layout_map_v9"}', 4, "E403", "another kvq"),
        (
            '{"schema": "kvq_layout_map_v1", "rules": [{"name": "(", "role": "key"}]}',
            3,
            "E401",
            "/rules/0/name",
        ),
    ],
)
def test_a_map_that_is_none(text, code, error, words, tmp_path):
    """The refusal names the file and the JSON pointer."""
    path = write(tmp_path, CAPTURES["both"][0])
    layout = tmp_path / "map.json"
    if text is not None:
        layout.write_text(text)
    with left_alone(tmp_path):
        refused(kvq("compress", path, "--layout", layout), code, error, words, "map.json")


def test_guess_is_for_one_capture(tmp_path):
    """Several inputs, a container or a profile are E101; weights are E209 and print nothing."""
    path = write(tmp_path, CAPTURES["both"][0])
    refused(kvq("inspect", "--guess", path, path), 2, "E101")
    refused(kvq("inspect", "--guess", write_map(tmp_path, RULE)), 2, "E101")
    weight = {f"l.{n}.{r}_proj.weight": entry(kv_bits((8, 8))) for n in range(2) for r in "qkv"}
    ran = kvq("inspect", "--guess", write(tmp_path, weight))
    refused(ran, 4, "E209", "weights")
    assert ran.out == ""

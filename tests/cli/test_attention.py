"""stats --queries: attention rows agree with plain NumPy on the restored file, and refusals."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from reference.attention import drift, turned

from support.captures import (
    canonical_capture,
    kv_bits,
    per_layer_capture,
    raw_safetensors,
    safetensors_bytes,
)
from support.real import floats, tensors
from support.shell import done, kvq, refused

LAYERS, HEADS, TOKENS, CHANNELS, ASKED = 2, 2, 70, 16, 5
POSITIONS = (3, 40, 69, 69, 12)
SHAPE = (1, LAYERS, 2 * HEADS, ASKED, CHANNELS)


def queries(shape=SHAPE, dtype="F16", positions=POSITIONS, metadata=None, seed=9):
    found = {"query": (dtype, shape, kv_bits(shape, dtype, seed).tobytes())}
    if positions is not None:
        data = np.array(positions, "<i8").tobytes()
        found["positions"] = ("I64", (len(positions),), data)
    return safetensors_bytes(found, metadata)


def capture(**more):
    more = {"tokens": TOKENS, "heads": HEADS, "channels": CHANNELS} | more
    return canonical_capture(**more)


def folder(tmp_path, cache, asked=None):
    path = tmp_path / "cache"
    path.write_bytes(cache)
    if asked is not None:
        (tmp_path / "q").write_bytes(asked)
    return path, tmp_path / "q"


def restored(path, tmp_path, profile):
    """float64 keys and values before and after, (B, L, H, T, D)."""
    done("compress", path, "-f", "-p", profile)
    done("decompress", f"{path}.kvq", "-f", "-o", tmp_path / "back")
    sides = []
    for each in (path, tmp_path / "back"):
        found = {name: floats(dtype, bits) for name, dtype, bits in tensors(each)}
        sides.append((found["key"], found["value"]))
    return sides


def expected_of(asked, sees, before, after, scale, batch=0, rope=None):
    """Layer by layer."""
    for layer in range(asked.shape[1]):
        sides = []
        for keys, values in (before, after):
            one = keys[batch, layer]
            if rope:
                one = turned(one, np.arange(one.shape[1]), *rope[:1], interleaved=rope[1])
            sides.append((one, values[batch, layer]))
        yield drift(asked[batch, layer], sees, *sides, scale)


def agree(rows, expected):
    """Every row of a head is the expected one, those of layers and the whole are means."""
    heads = [row for row in rows if row["head"] is not None]
    layers = [row for row in rows if row["head"] is None and row["layer"] is not None]
    (whole,) = [row for row in rows if row["layer"] is None]
    at = 0
    for layer, found in enumerate(expected):
        count = len(found["logit_mse"])
        for name, values in found.items():
            told = [row[name] for row in heads[at : at + count]]
            np.testing.assert_allclose(told, values, rtol=2e-5, atol=1e-12, err_msg=name)
            mean = pytest.approx(values.mean(), rel=2e-5, abs=1e-12)
            assert layers[layer][name] == mean
        at += count
    assert at == len(heads)
    for name in expected[0]:
        mean = np.mean([found[name].mean() for found in expected])
        assert whole[name] == pytest.approx(mean, rel=2e-5, abs=1e-12)


@pytest.mark.parametrize("profile", ["int8", "int4-g64", "kivi-2bit", "lossless"])
@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_rows_are_those_of_the_restored_file(profile, dtype, tmp_path):
    """Causal, grouped heads, several pages, with protected tokens too."""
    path, asked = folder(tmp_path, capture(dtype=dtype, tokens=300), queries(dtype=dtype))
    before, after = restored(path, tmp_path, profile)
    report = done("stats", f"{path}.kvq", "--against", path, "--queries", asked, "--json").result
    wide = floats(dtype, kv_bits(SHAPE, dtype, 9))
    sees = [position + 1 for position in POSITIONS]
    agree(report["attention"], list(expected_of(wide, sees, before, after, CHANNELS**-0.5)))
    assert report["probe"]["kind"] == "file"
    assert len(report["attention"]) == LAYERS * (2 * HEADS + 1) + 1
    same = done("stats", path, "-p", profile, "--queries", asked, "--json", "-T", 1).result
    assert same["attention"] == report["attention"]
    assert same["probe"] == report["probe"]


def test_queries_of_the_capture_itself(tmp_path):
    """They are taken without being asked for; without positions every token is seen."""
    key, value = (kv_bits((2, 2, 20, 8), "F32", seed) for seed in (1, 2))
    asked = kv_bits((2, 4, 3, 8), "F32", 3)
    cache = safetensors_bytes(
        {
            "key": ("F32", key.shape, key.tobytes()),
            "value": ("F32", value.shape, value.tobytes()),
            "query": ("F32", asked.shape, asked.tobytes()),
        },
        {"attention_scale": "0.125"},
    )
    path, _ = folder(tmp_path, cache)
    before, after = restored(path, tmp_path, "int8")
    report = done("stats", path, "-p", "int8", "--json").result
    wide, before, after = (
        floats("F32", asked)[None],
        [each[None] for each in before],
        [each[None] for each in after],
    )
    agree(report["attention"], list(expected_of(wide, [20] * 3, before, after, 0.125)))
    assert report["probe"]["kind"] == "capture"


@pytest.mark.parametrize("interleaved", [False, True])
def test_keys_without_rotary_positions_are_turned(interleaved, tmp_path):
    """As the metadata says; queries that have them are left alone, others turned too."""
    style = "interleaved" if interleaved else "half-rotated"
    told = {"rope_state": "pre", "rope_theta": "10000.0", "rope_style": style}
    path, asked = folder(tmp_path, capture(metadata=told), queries())
    before, after = restored(path, tmp_path, "int8")
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    sees = [position + 1 for position in POSITIONS]
    wide = floats("F16", kv_bits(SHAPE, "F16", 9))
    rope = 10000.0, interleaved
    agree(report["attention"], list(expected_of(wide, sees, before, after, 0.25, rope=rope)))
    asked.write_bytes(queries(metadata={"rope_state": "pre"}))
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    wide = turned(wide, np.array(POSITIONS), *rope[:1], interleaved=interleaved)
    agree(report["attention"], list(expected_of(wide, sees, before, after, 0.25, rope=rope)))


def test_the_last_keys_stand_in(tmp_path):
    """--queries self: a key sees what is not behind it."""
    path, _ = folder(tmp_path, capture())
    before, after = restored(path, tmp_path, "int4-g64")
    report = done("stats", path, "-p", "int4-g64", "--queries", "self", "--json").result
    wide, sees = before[0][..., -64:, :], list(range(TOKENS - 63, TOKENS + 1))
    agree(report["attention"], list(expected_of(wide, sees, before, after, 0.25)))
    assert report["probe"] == {"kind": "self", "digest": None}


def test_batch_entries_count_as_queries(tmp_path):
    """The mean over both entries."""
    shape = (2, *SHAPE[1:])
    path, asked = folder(tmp_path, capture(batch=2), queries(shape))
    before, after = restored(path, tmp_path, "int8")
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    wide, sees = floats("F16", kv_bits(shape, "F16", 9)), [each + 1 for each in POSITIONS]
    both = [list(expected_of(wide, sees, before, after, 0.25, batch=batch)) for batch in (0, 1)]
    agree(
        report["attention"],
        [
            {name: (one[name] + two[name]) / 2 for name in one}
            for one, two in zip(*both, strict=True)
        ],
    )
    assert report["attention"][0]["queries"] == 2 * ASKED


def test_a_layer_that_holds_the_last_tokens(tmp_path):
    """Positions count from the longest layer's first token; who sees nothing is left out."""
    cache = per_layer_capture(tokens=(20, 70), channels=CHANNELS)
    path, asked = folder(tmp_path, cache, queries())
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    counts = {row["layer"]: row["queries"] for row in report["attention"]}
    assert (counts[0], counts[1]) == (2, 5)  # tokens 50 to 69 are seen by those at 69


def test_keys_alone(tmp_path):
    """What needs values is null."""
    path, asked = folder(tmp_path, capture(roles=["key"]), queries())
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    assert report["attention"][-1]["attention_tv"] > 0
    assert report["attention"][-1]["attention_cosine"] is None


def test_what_is_not_finite_is_left_out(tmp_path):
    """A NaN in the capture is a raw page, and no NaN in the report."""
    data = bytearray(capture())
    data[-6:-4] = b"\x00\x7e"
    data[-TOKENS * CHANNELS * 2 * HEADS * LAYERS - 4 :][:2] = b"\x00\x7c"
    path, asked = folder(tmp_path, bytes(data), queries())
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    assert all(row["attention_tv"] is not None for row in report["attention"])
    assert report["attention"][-1]["attention_cosine"] > 0.9


def test_text_and_csv(tmp_path):
    """A table for people, rows with role `query` for spreadsheets."""
    path, asked = folder(tmp_path, capture(), queries())
    text = done("stats", path, "-p", "int8", "--queries", asked).out
    assert "attention, queries: the file's" in text
    assert "attention_tv" in text
    told = done("stats", path, "-p", "int8", "--queries", asked, "--csv").out
    rows = [row for row in csv.DictReader(io.StringIO(told)) if row["role"] == "query"]
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    assert [float(row["attention_tv"]) for row in rows] == [
        row["attention_tv"] for row in report["attention"]
    ]


HOSTILE = {
    "no query": (safetensors_bytes({"other": ("F16", (2,), bytes(4))}), 1, "E208"),
    "layers": (queries((1, 3, 4, 5, 16)), 1, "E208"),
    "heads": (queries((1, 2, 3, 5, 16)), 1, "E208"),
    "channels": (queries((1, 2, 4, 5, 8)), 1, "E208"),
    "rank": (queries((4, 5, 16)), 3, "E202"),
    "positions": (queries(positions=(1, 2)), 3, "E202"),
    "negative": (queries(positions=(1, 2, 3, 4, -1)), 3, "E202"),
    "far": (queries(positions=(1, 2, 3, 4, 2**62)), 3, "E202"),
    "scale": (queries(metadata={"attention_scale": "nan"}), 3, "E202"),
    "scale 0": (queries(metadata={"attention_scale": "0"}), 3, "E202"),
    "empty": (queries((1, 2, 4, 0, 16), positions=None), 7, "E207"),
    "not safetensors": (raw_safetensors("{"), 3, "E201"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_queries_that_do_not_fit(name, tmp_path):
    """One line, and which rule was broken."""
    asked, code, error_id = HOSTILE[name]
    path, asked = folder(tmp_path, capture(), asked)
    refused(kvq("stats", path, "-p", "int8", "--queries", asked), code, error_id)


@pytest.mark.parametrize(
    "told",
    [
        {"rope_state": "pre"},
        {"rope_state": "pre", "rope_theta": "Infinity"},
        {"rope_state": "pre", "rope_theta": "[" * 4000},
        {"rope_state": "pre", "rope_theta": '{"full": 1e4}', "layer_types": '["full"]'},
        {"rope_state": "pre", "rope_theta": "1e4", "rope_style": "spiral"},
        {"rope_state": "pre", "rope_theta": "1e4", "rope_scaling": "yarn"},
    ],
)
def test_keys_that_nobody_can_turn(told, tmp_path):
    """Asked for, that is refused; unasked, the rest of the report is there, and a note."""
    path, asked = folder(tmp_path, capture(metadata=told), queries())
    refused(kvq("stats", path, "-p", "int8", "--queries", asked), 2, "E101", "rope_theta")


def test_queries_of_the_capture_that_make_no_sense(tmp_path):
    """They are nobody's wish: a note says that nothing was measured."""
    shape = (1, 2, 2, 20, 8)
    cache = safetensors_bytes(
        {
            "key": ("F16", shape, kv_bits(shape).tobytes()),
            "value": ("F16", shape, kv_bits(shape, seed=1).tobytes()),
            "query": ("F16", (3, 8), bytes(48)),
        }
    )
    path, _ = folder(tmp_path, cache)
    report = done("stats", path, "-p", "int8", "--json").result
    assert (report["probe"], report["attention"]) == (None, [])
    assert any("attention was not measured" in note for note in report["notes"])


def test_queries_need_both_sides(tmp_path):
    """A container alone has nothing to compare with."""
    path, asked = folder(tmp_path, capture(), queries())
    done("compress", path)
    refused(kvq("stats", f"{path}.kvq", "--queries", asked), 2, "E101", "--queries")


def test_sample_data_of_the_readme(tmp_path):
    """The sample's own queries, as its README says."""
    sample = "sample_data/smollm2-sample-4x3x96x64-f16"
    ran = done(
        "stats", f"{sample}.safetensors", "-p", "int8", "--json",
        "--queries", f"{sample}.query.safetensors",
    )  # fmt: skip
    whole = json.loads(ran.out)["results"][0]["attention"][-1]
    assert 0 < whole["attention_tv"] < 0.01
    assert whole["queries"] == 64


def test_heat_maps_for_people(tmp_path):
    """With --verbose a letter for each head of each layer, the darkest for the largest."""
    path, asked = folder(tmp_path, capture(), queries())
    text = done("stats", path, "-p", "int8", "--queries", asked, "-v").out.splitlines()
    at = next(at for at, line in enumerate(text) if line.startswith("attention_tv, query heads"))
    maps = [line[6:] for line in text[at + 1 : at + 1 + LAYERS]]
    assert [len(line) for line in maps] == LAYERS * [2 * HEADS]
    report = done("stats", path, "-p", "int8", "--queries", asked, "--json").result
    heads = [row for row in report["attention"] if row["head"] is not None]
    worst = max(heads, key=lambda row: row["attention_tv"])
    assert maps[worst["layer"]][worst["head"]] == "@"
    exact = done("stats", path, "--queries", asked, "-v").out
    assert "across, layers down" not in exact

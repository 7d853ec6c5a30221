"""stats of several profiles side by side, and the profile that --suggest finds."""

from __future__ import annotations

import json

import numpy as np
import pytest

from support.captures import canonical_capture, kv_bits, safetensors_bytes
from support.shell import done, kvq, left_alone, refused

SHAPE = (1, 3, 4, 5, 32)


@pytest.fixture
def folder(tmp_path):
    """A capture of three layers, its queries, and a budget."""
    cache = canonical_capture(layers=3, heads=2, tokens=120, channels=32)
    (tmp_path / "cache").write_bytes(cache)
    found = {
        "query": ("F16", SHAPE, kv_bits(SHAPE, "F16", 9).tobytes()),
        "positions": ("I64", (5,), np.array([3, 60, 119, 100, 12], "<i8").tobytes()),
    }
    (tmp_path / "q").write_bytes(safetensors_bytes(found))
    (tmp_path / "b.json").write_text('{"max_attention_tv": 0.05}')
    return tmp_path


def suggested(folder, *more):
    call = ["stats", folder / "cache", "--suggest", "--budget", folder / "b.json"]
    return done(*call, "--queries", folder / "q", "--json", *more).result


def test_several_profiles_side_by_side(folder):
    """A result each, as each alone would have; a line each for people."""
    call = ["stats", folder / "cache", "--queries", folder / "q"]
    names = ("int8", "int4", "turboquant-3bit")
    many = [word for name in names for word in ("-p", name)]
    results = done(*call, *many, "--json").report["results"]
    assert [each["profiles"][0]["name"] for each in results] == list(names)
    for name, each in zip(names, results, strict=True):
        assert done(*call, "-p", name, "--json").result == each
    text = done(*call, *many).out.splitlines()
    assert len(text) == 1 + len(names) + sum(line.startswith("note:") for line in text)
    assert text[0].split()[:3] == ["input", "profile", "ratio"]
    csv = done(*call, *many, "--csv").out.splitlines()
    assert csv[0].startswith("path,")
    assert len([line for line in csv if ",query," in line]) == len(names) * (3 * 5 + 1)


def test_what_is_suggested_keeps_the_budget_and_is_the_smallest(folder):
    """The profile as it is printed compresses to the smallest file of all candidates."""
    with left_alone(folder):
        report = suggested(folder)
    sizes = [each["bytes"] for each in report["candidates"]]
    assert sizes == sorted(sizes)
    assert len(sizes) >= 20
    (folder / "p.json").write_text(json.dumps(report["profile"]))
    beside = ["--queries", folder / "q"]
    made = done("compress", folder / "cache", "-p", folder / "p.json", *beside, "--json").result
    assert made["profiles"][0]["digest"] == report["digest"]
    told = done("verify", folder / "cache.kvq", "--against", folder / "cache", *beside, "--json")
    assert told.result["quality"]["max_attention_tv"]["value"] <= 0.05
    for name in ("int8", "int4", "turboquant-4bit", "fibquant-2bit", "kivi-4bit"):
        value = json.loads(done("profile", "show", name).out)
        value["budget"] = {"max_attention_tv": 0.05}
        (folder / "other.json").write_text(json.dumps(value))
        call = ["compress", folder / "cache", "-f", "-p", folder / "other.json", *beside]
        assert done(*call, "--json").result["file_bytes"] >= 0.97 * made["file_bytes"]


def test_text_is_a_profile(folder):
    """Standard output holds the profile alone."""
    call = ["stats", folder / "cache", "--suggest", "--budget", folder / "b.json"]
    ran = done(*call, "--queries", "self")
    assert json.loads(ran.out)["budget"]["max_attention_tv"] == 0.05
    assert "bytes of pages" in ran.err
    assert "no bound looks at values" in ran.err
    assert len(ran.err.splitlines()) == 8
    assert len(done(*call, "--queries", "self", "-v").err.splitlines()) > 20


def test_a_strict_budget_is_kept_without_loss(folder):
    """Where nothing may change, lossless is smallest."""
    (folder / "b.json").write_text('{"max_relative_mse": 0}')
    assert suggested(folder)["profile"]["name"] == "lossless"


def test_a_sample_of_the_layers(folder):
    """Fewer bytes are counted, and the report says so."""
    whole, some = suggested(folder), suggested(folder, "--sample", 1)
    assert (some["sample"]["layers"], some["sample"]["of_layers"], whole["sample"]) == (1, 3, None)
    assert 3 * some["source_bytes"] == whole["source_bytes"]


@pytest.mark.parametrize(
    "words",
    [
        ["--suggest"],
        ["--budget", "b.json"],
        ["--sample", "x512"],
        ["--sample", "3x300"],
        ["--plan", "--model", "llama-3.1-8b", "--tokens", "9", "-p", "int8", "--sample", "1"],
        ["--suggest", "--budget", "b.json", "-p", "int8"],
        ["--suggest", "--budget", "b.json", "--csv"],
        ["--suggest", "--budget", "b.json", "--codebook", "c.json"],
        ["--suggest", "--budget", "b.json", "--against", "cache"],
        ["--suggest", "--budget", "b.json", "--sample", "0"],
    ],
)
def test_options_that_would_do_nothing(words, folder, monkeypatch):
    """One line, and nothing measured."""
    monkeypatch.chdir(folder)
    refused(kvq("stats", "cache", *words), 2, "E101", "--")

"""planned: what is computed of a container is what compress writes, to the byte."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kvq_cli import advice, pipeline
from kvq_cli.capture.writer import header_bytes
from kvq_cli.container import outline
from kvq_cli.errors import CaptureError, ContainerError, ProfileError, UsageError
from kvq_cli.numerics.nearest import grid
from kvq_cli.planes import table_spec
from kvq_cli.profile import Entropy, Profile, load_profile, parse_profile
from kvq_cli.steps.geometry import Geometry
from kvq_cli.words import DType, Role
from support.captures import kv_bits

CONTRACT = Path(__file__).parents[3] / "formats" / "vectors" / "contract" / "fibquant.json"
NAMES = [
    "fibquant-2bit", "fp8-e4m3", "int4", "int4-g64", "int8", "kivi-2bit", "lossless", "raw",
    "turboquant-3bit", "turboquant-boundary", "turboquant-plus",
]  # fmt: skip
GEOMETRIES = {
    "one token": Geometry(2, 2, 1, 64),
    "ragged": Geometry(3, 2, 300, 32, dtype=DType.BF16),
    "whole pages": Geometry(1, 3, 512, 96),
    "a page and one token": Geometry(5, 1, 257, 64, batch=2),
    "float32": Geometry(1, 2, 140, 128, dtype=DType.F32),
    "odd": Geometry(2, 3, 33, 7, batch=3),
    "one element": Geometry(1, 1, 1, 1),
}
SPLIT = {
    "page_tokens": 7,
    "rules": [
        {"role": "key", "layers": [[1, None]], "heads": [[0, 1]], "codec": "kivi"},
        {"tokens": [[5, 23], [-9, -2]], "codec": {"name": "int8", "center": True}},
        {"role": "value", "codec": {"name": "turboquant_mse", "bits": 2}},
    ],
    "protected": {"first_tokens": 3, "last_tokens": 5, "heads": [[-1, None]]},
}
PROFILES = {
    "split": SPLIT,
    "aligned": SPLIT | {"storage": {"alignment": 4096}},
    "fails closed": SPLIT | {"fallback": "fail_closed"},
    # A scale a token takes more than a channel of one does.
    "fixed": {"page_tokens": 16, "rules": [{"codec": "int8"}], "fixed_rate": True},
    "larger": {"page_tokens": 16, "rules": [{"codec": "int8"}]},
    "protected layers": {"rules": [{"codec": "int4"}], "protected": {"layers": [[0, 1]]}},
    "nothing": {"rules": []},
    "layers": SPLIT | {"page_layers": 2},
    "more layers": {"rules": [{"codec": "int8"}], "page_layers": 3, "page_tokens": 100},
}

MANY_SETS = [
    {"role": "key", "heads": [[0, 1]], "codec": "raw"},
    {"role": "value", "heads": [[0, 2]], "codec": "raw"},
    {"codec": "int8"},
]


def unpacked(profile):
    """The same, but nothing is entropy coded."""
    return replace(profile, storage=replace(profile.storage, entropy=Entropy.NONE))


def made(name, **members):
    value = {"schema": "kvq_profile_v1", "name": name.replace(" ", "-"), **members}
    return unpacked(parse_profile(value))


def written(path, geometry):
    """A capture of this geometry, as the official writer has it."""
    tensors = [(role.word, str(geometry.dtype), geometry.shape) for role in Role]
    bits = (kv_bits(geometry.shape, str(geometry.dtype), role) for role in Role)
    path.write_bytes(header_bytes(tensors, {}) + b"".join(each.tobytes() for each in bits))
    return path


def compared(folder, profile, geometry, **options):
    """The plan, held against the container."""
    capture, box = written(folder / "cache", geometry), folder / "cache.kvq"
    told = pipeline.compress(capture, box, profiles=[profile], threads=1, force=True, **options)
    measured = pipeline.stats(box, threads=1)
    plan = advice.plan_stats(profile, geometry, **options)
    assert plan.container_bytes == told.file_bytes == box.stat().st_size
    assert plan.packed_bytes == told.packed_bytes
    assert plan.source_bytes == told.source_bytes
    assert (plan.pages, plan.raw_pages) == (told.pages, told.raw_pages)
    assert Counter(plan.parts) == Counter(measured.parts)
    assert sum(plan.parts.values()) == plan.container_bytes
    assert plan.profiles == told.profiles
    for name in ("ratio", "ratio_against", "bits_per_element", "notes"):
        assert getattr(plan, name) == getattr(measured, name), name
    rows = [{**row, "stored": row["packed"]} for row in plan.layers]
    assert [{name: row[name] for name in measured.layers[0]} for row in rows] == measured.layers
    return plan


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))
@pytest.mark.parametrize("name", NAMES)
def test_built_in_profiles(name, geometry, tmp_path):
    """Every number of the plan is that of a container without entropy coding."""
    compared(tmp_path, unpacked(load_profile(name)), geometry)


@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=list(GEOMETRIES))
@pytest.mark.parametrize("name", PROFILES)
def test_other_profiles(name, geometry, tmp_path):
    """Heads apart, token ranges, alignments, raw for being larger: all is as compress does it."""
    compared(tmp_path, made(name, **PROFILES[name]), geometry)


def test_more_pages_than_a_leaf_holds(tmp_path):
    """The index is counted to the leaf: one page too many begins another."""
    profile = made("p", page_tokens=1, rules=[{"codec": "raw"}])
    for tokens in (2048, 2049):
        assert compared(tmp_path, profile, Geometry(1, 1, tokens, 1)).pages == 2 * tokens


def test_a_codebook_is_counted(tmp_path):
    """A table that a profile names takes its place, and is asked for."""
    words = np.random.default_rng(0).integers(-500, 500, (32, 2)).astype("<i2")
    codec = {"block": 2, "size": 32}
    known = {"schema": "kvq_codebook_v1", "channels": 24, "grid": grid(2), **codec}
    book = known | {"digest": table_spec(words).digest, "codewords": words.tolist()}
    (tmp_path / "book.json").write_text(json.dumps(book))
    codec |= {"name": "fibquant", "codebook": book["digest"]}
    profile = made("p", rules=[{"codec": codec}])
    plan = compared(
        tmp_path, profile, Geometry(1, 2, 40, 24), codebooks=[str(tmp_path / "book.json")]
    )
    assert plan.parts["tables"] > 32 * 2 * 2
    with pytest.raises(ProfileError) as refusal:
        advice.plan_stats(profile, Geometry(1, 2, 40, 24))
    assert refusal.value.error_id == "E403"


def test_entropy_coding_is_not_guessed(tmp_path):
    """With zstd the plan is the same, and the container smaller."""
    profile = load_profile("lossless")
    geometry = Geometry(2, 2, 300, 64)
    told = pipeline.compress(written(tmp_path / "cache", geometry), profiles=[profile])
    plan = advice.plan_stats("lossless", geometry)
    assert plan.path == "lossless"
    assert told.stored_bytes < told.packed_bytes == plan.packed_bytes
    assert plan.computed is True
    assert plan.float32_bytes == 2 * plan.source_bytes


def test_layers_name_their_codecs():
    """Of each role and layer, in the order of its tokens."""
    plan = advice.plan_stats("turboquant-boundary", Geometry(6, 2, 100, 64))
    told = {(row["role"], row["layer"]): row for row in plan.layers}
    assert len(told) == len(plan.layers) == 12
    assert all(row["codecs"] == ["raw", "turboquant_mse"] for row in plan.layers)
    bits = [told["key", layer]["bits_per_element"] for layer in range(6)]
    assert bits[0] == bits[1] == bits[4] == bits[5] > bits[2] == bits[3]
    assert plan.packed_bytes == sum(row["packed"] for row in plan.layers)


@pytest.mark.parametrize("name", ["int8", "kivi-2bit", "turboquant-boundary", "lossless"])
def test_long_caches_take_no_longer(name):
    """Pages are multiplied, never walked: this would not end."""
    plan = advice.plan_stats(name, Geometry(80, 8, 1 << 32, 128))
    assert plan.pages >= 80 * 2 * (1 << 24)
    assert (plan.ratio > 1) == (name != "lossless")


def test_pages_of_several_layers_are_fewer():
    """So are their frames; planes take what they took."""
    geometry = Geometry(7, 2, 300, 64)
    plans = [
        advice.plan_stats(made("p", rules=[{"codec": "int8"}], page_layers=count), geometry)
        for count in (1, 3)
    ]
    assert [plan.pages for plan in plans] == [2 * 2 * 7, 2 * 2 * 3]
    assert plans[0].packed_bytes == plans[1].packed_bytes
    assert plans[0].layers == plans[1].layers
    assert plans[0].container_bytes > plans[1].container_bytes


@pytest.mark.parametrize(
    ("geometry", "members", "error"),
    [
        # One chunk a page, and the last chunks are the index's.
        (Geometry(1, 1, 1 << 31, 1), {"page_tokens": 1, "rules": [{"codec": "raw"}]}, "E306"),
        (Geometry(1, 64, 1 << 20, 1 << 10), {"page_tokens": 1 << 10, "rules": []}, "E306"),
        (Geometry(1, 1, 64, 1 << 20), {"rules": [{"codec": "raw"}]}, "E306"),
        # More than the double of a page of 2**26 bytes.
        (
            Geometry(1, 1 << 9, 1 << 16, 1),
            {"page_tokens": 1 << 16, "rules": [{"codec": "int8"}], "fixed_rate": True},
            "E306",
        ),
        # Every head of a page may have to be raw alone, and the header has a set for each.
        (Geometry(1, 1 << 16, 8, 8), {"page_tokens": 1, "rules": MANY_SETS}, "E306"),
        (Geometry(1 << 15, 1, 8, 8, batch=2), {"rules": []}, "E207"),
    ],
)
def test_limits_are_those_of_a_container(geometry, members, error):
    """What no container can hold is refused as compress refuses it."""
    with pytest.raises((ContainerError, CaptureError)) as refusal:
        advice.plan_stats(made("p", **members), geometry)
    assert refusal.value.error_id == error


def test_the_last_chunk_that_fits(monkeypatch):
    """The limit of chunks counts header, pages, leaf, root; none less and none more."""
    profile, geometry = made("p", rules=[{"codec": "raw"}]), Geometry(2, 1, 300, 8)
    monkeypatch.setattr(outline, "MAX_CHUNKS", 8 + 3)
    assert advice.plan_stats(profile, geometry).pages == 8
    monkeypatch.setattr(outline, "MAX_CHUNKS", 8 + 2)
    with pytest.raises(ContainerError):
        advice.plan_stats(profile, geometry)


@pytest.mark.parametrize(
    ("name", "channels", "fits"),
    [
        ("fibquant-2bit", 256, True),
        ("fibquant-2bit", 257, False),
        ("turboquant-3bit", 640, True),
        ("turboquant-3bit", 641, False),
        ("int8", 1000, True),
    ],
)
def test_a_head_dim_that_a_codec_cannot_take(name, channels, fits, tmp_path):
    """What compress would keep raw, head by head, is no plan."""
    geometry = Geometry(1, 1, 20, channels)
    if fits:
        compared(tmp_path, unpacked(load_profile(name)), geometry)
        return
    with pytest.raises(UsageError) as refusal:
        advice.plan_stats(name, geometry)
    assert refusal.value.error_id == "E101"
    told = pipeline.compress(written(tmp_path / "cache", geometry), profiles=[name])
    assert set(told.raw_pages) == {"unsupported"}


def test_bound_profiles_and_budgets(tmp_path):
    """A KV profile is for a capture's shape; a budget needs data, and a note says so."""
    known = json.loads(json.loads(CONTRACT.read_text())["kv_profiles"][-1]["json"])
    (tmp_path / "keys.json").write_text(json.dumps(known))
    with pytest.raises(UsageError) as refusal:
        advice.plan_stats(tmp_path / "keys.json", Geometry(1, 1, 4, 8))
    assert refusal.value.error_id == "E101"
    strict = made("p", rules=[], budget={"max_relative_mse": 0.1})
    notes = advice.plan_stats(strict, Geometry(1, 1, 4, 8)).notes
    assert any("budget" in note for note in notes)


def test_nothing_is_read(tmp_path, monkeypatch):
    """A plan opens no file but the profile's."""
    path = tmp_path / "mine.json"
    assert isinstance(load_profile("int8"), Profile)
    path.write_text(json.dumps(load_profile("int8").to_json()))
    monkeypatch.setattr("os.open", None)
    monkeypatch.setattr("os.pread", None)
    plan = advice.plan_stats(str(path), Geometry(1, 1, 4, 8))
    assert plan.path == str(path)

"""Transforms learned from one text of a real model, held against other codecs on another text."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kvq_cli import pipeline
from support.real import QUERIES, captures

pytestmark = pytest.mark.long
PATHS = [each.values[0] for each in captures("canonical")]
# Learned from, and held against: two texts of one model.
PAIRS = [("py_textwrap-1024", "prideprejudice-512"), ("prideprejudice-512", "py_textwrap-1024")]


def named(part: str) -> Path:
    """The capture whose name has this part; a skip where there is none."""
    found = [path for path in PATHS if path is not None and part in path.name]
    if not found:
        pytest.skip("KVQ_CAPTURES has no such capture")
    return found[0]


@cache
def attention(path: Path, profile: str, calibration: Path | None = None):
    """Bits an element of the file without tables, total variation and cosine."""
    queries = path.with_name(path.name.replace(".safetensors", QUERIES))
    report = pipeline.stats(path, profiles=[profile], queries=queries, calibration=calibration)
    size = report.file_bytes - report.parts.get("tables", 0)
    whole = report.attention[-1]
    elements = report.file_bytes * 8 / report.bits_per_element
    return 8 * size / elements, whole["attention_tv"], whole["attention_cosine"]


@pytest.mark.parametrize(("learned", "held"), PAIRS)
def test_another_text_is_smaller_and_nearer(learned, held, tmp_path):
    """One text is far too little to learn from, and does already."""
    calibration = tmp_path / "model.kvqcal"
    pipeline.calibrate_transform([named(learned)], calibration)
    bits, variation, cosine = attention(named(held), "transform-8x", calibration)
    assert bits < 2.05
    other_bits, other_variation, other_cosine = attention(named(held), "turboquant-2bit")
    assert bits < other_bits
    assert variation < other_variation * 2 / 3
    assert 1 - cosine < (1 - other_cosine) * 2 / 3


@pytest.mark.parametrize("path", captures())
@pytest.mark.parametrize("profile", ["transform-8x", "transform-16x"])
def test_captures_of_real_models_come_back(path, profile, tmp_path):
    """With a basis of their own, whatever their layout; and the container knows its capture."""
    container, back = tmp_path / "c.kvq", tmp_path / "c.safetensors"
    meta = {} if "rope_state" in json.dumps(_metadata(path)) else {"rope_state": "post"}
    pipeline.compress(path, container, profiles=[profile], calibration="self", meta=meta)
    assert not pipeline.verify(container, against=path).broken
    pipeline.decompress(container, back)
    assert back.stat().st_size == path.stat().st_size
    report = pipeline.stats(container, against=path)
    errors = [each["relative_mse"] for each in report.errors if each["layer"] is None]
    assert np.all(np.array(errors) < 0.5)


def _metadata(path: Path) -> object:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)).get("__metadata__", {})

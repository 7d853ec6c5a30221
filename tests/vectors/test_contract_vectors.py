"""The contract's vectors: every digest that must be equal, every object that must be refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from kvq_cli import jsontext
from kvq_cli.contract.calibration_summary import KvCalibrationSummaryV1
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.layout import KvCacheLayoutV1
from kvq_cli.contract.numbers import f32_text, f64_text
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import LloydMode
from kvq_cli.errors import ProfileError
from support.patches import patched

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "contract"
VALID = jsontext.loads((FOLDER / "fibquant.json").read_bytes(), limit=1 << 20)
INVALID = jsontext.loads((FOLDER / "invalid.json").read_bytes(), limit=1 << 20)
OBJECTS: dict[str, Any] = {
    "shape": KvTensorShapeV1,
    "layout": KvCacheLayoutV1,
    "page_geometry": KvPageGeometryV1,
    "vector_profile": FibQuantProfileV1,
    "kv_profile": KvCompressionProfileV1,
    "calibration_summary": KvCalibrationSummaryV1,
}
CASES = [
    pytest.param(group, case, id=f"{group['object']}: {case['name']}")
    for group in INVALID["groups"]
    for case in group["cases"]
]


def load(text: str) -> Any:
    return jsontext.loads(text.encode(), limit=1 << 20)


def read(group: dict[str, Any], value: Any, shape: Any) -> None:
    """Read an object as its users do: by itself, then for a shape where there is one."""
    read_object = OBJECTS[group["object"]].from_json(value)
    if shape is None:
        return
    read_shape = KvTensorShapeV1.from_json(shape)
    if group["object"] == "layout":
        read_shape.validate_layout(read_object)
    else:
        read_object.validate_for_shape(read_shape)


@pytest.mark.parametrize("row", VALID["shapes"], ids=lambda row: row["name"])
def test_shape_and_layout_digests(row: dict[str, str]) -> None:
    """A shape has the reference's text, digest and layout digest."""
    shape = KvTensorShapeV1.from_json(load(row["json"]))
    assert shape.compact() == row["json"]
    assert shape.digest() == row["digest"]
    assert shape.layout().digest() == row["layout_digest"]


def test_layout_text() -> None:
    """The layout of a shape has the reference's text."""
    shapes = {row["name"]: row["json"] for row in VALID["shapes"]}
    for row in VALID["layouts"]:
        shape = KvTensorShapeV1.from_json(load(shapes[row["shape"]]))
        layout = KvCacheLayoutV1.from_json(load(row["json"]))
        assert layout.compact() == row["json"]
        assert shape.layout() == layout
        shape.validate_layout(layout)


@pytest.mark.parametrize("row", VALID["page_geometries"], ids=lambda row: row["digest"][:14])
def test_page_geometry_digests(row: dict[str, str]) -> None:
    """A page geometry has the reference's text and digest, and fits its shape."""
    shapes = {row["name"]: row["json"] for row in VALID["shapes"]}
    geometry = KvPageGeometryV1.from_json(load(row["json"]))
    assert geometry.compact() == row["json"]
    assert geometry.digest() == row["digest"]
    geometry.validate_for_shape(KvTensorShapeV1.from_json(load(shapes[row["for_shape"]])))


@pytest.mark.parametrize("row", VALID["vector_profiles"], ids=lambda row: str(row["args"]))
def test_vector_profile_digests(row: dict[str, Any]) -> None:
    """A vector profile has the reference's digest, read from text or made from (d, k, N, seed)."""
    profile = FibQuantProfileV1.from_json(load(row["json"]))
    assert profile.compact() == row["json"]
    assert profile.digest() == row["digest"]
    assert FibQuantProfileV1.paper_default(*row["args"]).digest() == row["digest"]


@pytest.mark.parametrize("row", VALID["lloyd_mode"], ids=lambda row: str(row["args"]))
def test_lloyd_mode_digests(row: dict[str, Any]) -> None:
    """The 20-field set has the digest of the lineage that has it."""
    profile = FibQuantProfileV1.from_json(load(row["json"]))
    assert profile.compact() == row["json"]
    assert profile.digest() == row["digest"]
    assert FibQuantProfileV1.paper_default(*row["args"], LloydMode.REFINE) == profile


@pytest.mark.parametrize("row", VALID["kv_profiles"], ids=lambda row: row["name"])
def test_kv_profile_digests(row: dict[str, str]) -> None:
    """A KV profile has the reference's text and digest, also after its numbers were re-read."""
    profile = KvCompressionProfileV1.from_json(load(row["json"]))
    assert profile.compact() == row["json"]
    assert profile.digest() == row["digest"]
    profile.validate_for_shape(KvTensorShapeV1.from_json(load(row["shape"])))
    rewritten = json.dumps(json.loads(row["json"]), indent=4)
    assert KvCompressionProfileV1.from_json(load(rewritten)).digest() == row["digest"]


@pytest.mark.parametrize("row", VALID["calibration_summaries"], ids=lambda row: row["digest"][:14])
def test_calibration_summary_digests(row: dict[str, str]) -> None:
    """A summary has the reference's text and digest, which it states itself."""
    value = {**load(row["json"]), "calibration_digest": row["digest"]}
    summary = KvCalibrationSummaryV1.from_json(value)
    assert summary.compact() == row["json"]
    assert summary.digest() == summary.calibration_digest == row["digest"]
    assert summary.to_json() == value
    without = {key: each for key, each in value.items() if each is not None}
    assert KvCalibrationSummaryV1.from_json(without) == summary


@pytest.mark.parametrize("row", VALID["f64"], ids=lambda row: row["text"])
def test_float64_text(row: dict[str, str]) -> None:
    """A float64 has the reference's text."""
    assert f64_text(struct.unpack(">d", bytes.fromhex(row["bits"]))[0]) == row["text"]


@pytest.mark.parametrize("row", VALID["f32"], ids=lambda row: row["text"])
def test_float32_text(row: dict[str, str]) -> None:
    """A float32 has the reference's text."""
    assert f32_text(struct.unpack(">f", bytes.fromhex(row["bits"]))[0]) == row["text"]


@pytest.mark.parametrize("group", INVALID["groups"], ids=lambda group: group["object"])
def test_bases_are_valid(group: dict[str, Any]) -> None:
    """What the invalid cases are patched from is valid, so each is refused for its patch."""
    read(group, group["base"], group.get("shape"))


@pytest.mark.parametrize(("group", "case"), CASES)
def test_invalid(group: dict[str, Any], case: dict[str, Any]) -> None:
    """An invalid object is refused with its error id, at its JSON pointer."""
    value = patched(group["base"], case["patch"])
    shape = group.get("shape") and patched(group["shape"], case.get("shape_patch", []))
    with pytest.raises(ProfileError) as refusal:
        read(group, value, shape)
    assert (refusal.value.error_id, refusal.value.pointer) == (case["error"], case["pointer"])

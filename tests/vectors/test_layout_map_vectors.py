"""The vectors of formats/vectors/layout_map, read by the parser and by the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import make_layout_map_vectors as tool
import pytest
from jsonschema import Draft202012Validator

from kvq_cli import jsontext
from kvq_cli.capture.layout_map import MAX_BYTES, parse_map
from kvq_cli.capture.mapped import recognise
from kvq_cli.errors import KvqError
from support.patches import patched

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "formats" / "vectors" / "layout_map"
VALID = json.loads((VECTORS / "valid.json").read_text(encoding="utf-8"))["cases"]
INVALID = json.loads((VECTORS / "invalid.json").read_text(encoding="utf-8"))
VALIDATOR = Draft202012Validator(
    json.loads((ROOT / "formats" / "schemas" / "layout_map.schema.json").read_text())
)
each_valid = pytest.mark.parametrize("case", VALID, ids=lambda case: case["id"])
each_invalid = pytest.mark.parametrize("case", INVALID["cases"], ids=lambda case: case["id"][:60])


def document(case):
    """The JSON value of a case: a patch of one step, a text or a map."""
    if "layout_map" in case:
        return case["layout_map"]
    if "text" in case:
        return json.loads(case["text"])
    return patched(INVALID["base"], case["patch"])


def bound(case):
    """What a case would bind."""
    data = case["text"] if "text" in case else json.dumps(document(case))
    made = parse_map(jsontext.loads(data.encode(), limit=MAX_BYTES))
    return recognise(made, tool.files_of([(None, case["tensor"], case["shape"])]))


@each_valid
def test_a_valid_case_binds_its_tensors(case):
    """Each tensor has the stated rows, and the schema accepts the map."""
    tensors = [(each["file"], each["name"], each["shape"]) for each in case["tensors"]]
    assert tool.rows_of(case["layout_map"], tensors) == case["tensors"]
    VALIDATOR.validate(case["layout_map"])


def test_base_is_valid():
    """What the invalid cases patch is itself accepted."""
    parse_map(INVALID["base"])
    VALIDATOR.validate(INVALID["base"])


@each_invalid
def test_an_invalid_case_is_refused(case):
    """The refusal has the stated id and the stated JSON pointer."""
    with pytest.raises(KvqError) as refusal:
        bound(case)
    assert refusal.value.error_id == case["error"]
    assert getattr(refusal.value, "pointer", None) == case["pointer"]
    assert "\n" not in str(refusal.value)


@each_invalid
def test_the_schema_refuses_what_it_has_words_for(case):
    """The schema refuses and accepts exactly as the case says."""
    if case["schema"] != "no json":
        accepted = case["schema"] in ("cannot", "accepts")
        assert VALIDATOR.is_valid(document(case)) == accepted

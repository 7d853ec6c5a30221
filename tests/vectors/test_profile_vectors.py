"""The profile vectors of formats/vectors/profile, read by the parser and by the JSON Schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from jsonschema import Draft202012Validator

from kvq_cli import jsontext
from kvq_cli.errors import KvqError
from kvq_cli.profile import builtin_names, load_profile, parse_profile, read_profile
from support.patches import patched

ROOT = Path(__file__).parent.parent.parent
VECTORS = ROOT / "formats" / "vectors" / "profile"
VALID = json.loads((VECTORS / "valid.json").read_text(encoding="utf-8"))["cases"]
INVALID = json.loads((VECTORS / "invalid.json").read_text(encoding="utf-8"))
SCHEMA = json.loads(
    (ROOT / "formats" / "schemas" / "profile.schema.json").read_text(encoding="utf-8")
)
VALIDATOR = Draft202012Validator(SCHEMA)

each_valid = pytest.mark.parametrize("case", VALID, ids=lambda case: case["id"])
each_invalid = pytest.mark.parametrize("case", INVALID["cases"], ids=lambda case: case["id"])


def test_the_schema_is_a_schema():
    """profile.schema.json is valid JSON Schema 2020-12."""
    Draft202012Validator.check_schema(SCHEMA)


def test_there_are_enough_cases():
    """More documents are refused than accepted, and ids are unique."""
    ids = [case["id"] for case in VALID + INVALID["cases"]]
    assert len(ids) == len(set(ids))
    assert len(VALID) >= 15
    assert len(INVALID["cases"]) >= 60


@each_valid
def test_a_valid_case_has_its_normal_form(case):
    """Parsing gives the normal form, whose parsing gives the same profile."""
    profile = parse_profile(case["profile"])
    assert jsontext.canonical(profile.to_json()) == jsontext.canonical(case["normal_form"])
    assert parse_profile(case["normal_form"]) == profile


@each_valid
def test_a_valid_case_has_its_digest(case):
    """The digest is the stated one, and the one that formats/profile.md defines."""
    content = {
        key: value
        for key, value in case["normal_form"].items()
        if key not in ("description", "storage")
    }
    compact = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    expected = blake3(b"kvq_profile_v1\0" + compact.encode()).hexdigest()
    assert case["digest"] == f"blake3:{expected}"
    assert parse_profile(case["profile"]).digest() == case["digest"]


@each_valid
def test_the_schema_accepts_a_valid_case(case):
    """The document and its normal form both validate."""
    VALIDATOR.validate(case["profile"])
    VALIDATOR.validate(case["normal_form"])


def test_base_is_valid():
    """What the invalid cases patch is itself accepted, so each fails for its own reason."""
    parse_profile(INVALID["base"])
    VALIDATOR.validate(INVALID["base"])


@each_invalid
def test_the_parser_refuses_an_invalid_case(case):
    """The refusal has the stated id and the stated JSON pointer."""
    text = case["text"] if "text" in case else json.dumps(patched(INVALID["base"], case["patch"]))
    with pytest.raises(KvqError) as refusal:
        read_profile(text.encode())
    assert (refusal.value.error_id, refusal.value.pointer) == (case["error"], case["pointer"])


@each_invalid
def test_the_schema_refuses_what_it_has_words_for(case):
    """The schema refuses and accepts exactly as the case says."""
    if case["schema"] == "no json":
        return
    document = (
        json.loads(case["text"]) if "text" in case else patched(INVALID["base"], case["patch"])
    )
    assert VALIDATOR.is_valid(document) == (case["schema"] == "cannot")


def test_builtins_are_among_the_cases():
    """Every built-in profile has its digest pinned."""
    pinned = {case["id"]: case["digest"] for case in VALID}
    for name in builtin_names():
        assert load_profile(name).digest() == pinned[f"builtin-{name}"]


def test_the_files_are_what_the_tool_writes():
    """Nobody edited the vectors by hand."""
    tool = ROOT / "tools" / "make_profile_vectors.py"
    done = subprocess.run([sys.executable, tool, "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode()

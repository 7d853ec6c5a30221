"""The committed results of transform: whole, what they say they are, and in the document."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest

import make_docs
import transform_docs
from benchmarks import transform, transform_ablation

ROOT = Path(__file__).parents[2]
RESULTS = transform_docs.load()
CAPTURES = {part["capture"]: part for part in RESULTS["captures"]}
E2E = json.loads(transform_docs.E2E.read_text("utf-8"))["runs"]


def same(one, other):
    return one == pytest.approx(other, rel=2e-3)


def test_captures_are_those_that_the_document_names():
    """Prose and code of SmolLM2 at least."""
    assert {"smollm2-prose", "smollm2-code"} <= set(CAPTURES) <= set(transform_docs.CAPTURES)


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_every_codec_and_step_has_a_row(name):
    """And each calibration a verdict against each codec, or none where no step is good."""
    part = CAPTURES[name]
    codecs = [row["codec"] for row in part["rows"] if "step" not in row]
    assert codecs == list(transform.references())
    steps = [(row["calibration"], row["step"]) for row in part["rows"] if "step" in row]
    assert steps == [(each, step) for each in part["calibrations"] for step in transform.STEPS]
    asked = [(row["calibration"], row["against"]) for row in part["verdicts"]]
    wanted = [(each, name) for each in part["calibrations"] for name in transform.AGAINST]
    assert asked == [each for each in wanted if each in asked]


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_verdicts_hold(name):
    """No worse in either measure, and smaller by what is said."""
    part = CAPTURES[name]
    codecs = {row["codec"]: row for row in part["rows"] if "step" not in row}
    for row in part["verdicts"]:
        against = codecs[row["against"]]
        assert row["tv"] <= against["tv"]
        assert row["cosine"] >= against["cosine"]
        assert same(row["factor"], against["bits"] / row["bits"])
        assert same(row["ratio"], 16 / row["bits"])
        assert row["embedded_bits"] > row["bits"]


@pytest.mark.parametrize("name", sorted(CAPTURES))
def test_coarser_steps_take_fewer_bits(name):
    """Of one calibration, step by step, and lose more."""
    for calibration in CAPTURES[name]["calibrations"]:
        rows = [row for row in CAPTURES[name]["rows"] if row.get("calibration") == calibration]
        for one, other in pairwise(rows):
            assert one["bits"] > other["bits"]
            assert one["tv"] < other["tv"]


def test_the_ablation_has_every_variant():
    """On each of its captures, next to the calibration that it differs from."""
    found = [(row["part"], row["variant"], row["capture"]) for row in RESULTS["ablation"]["rows"]]
    assert found == [
        (each.part, each.name, f"{transform_ablation.MODEL}-{capture}")
        for each in transform_ablation.VARIANTS
        for capture in each.captures
    ]


def test_results_name_no_folder_of_a_machine():
    """Commands and files go by their names alone."""
    assert re.search(r"[\" ]/\w", json.dumps([RESULTS, E2E])) is None


@pytest.mark.parametrize("name", sorted(transform_docs.BLOCKS))
def test_documents_show_the_committed_results(name):
    """`make docs` would change no table of results."""
    text = (ROOT / "docs" / "transform.md").read_text(encoding="utf-8")
    (shown,) = (match for match in make_docs.BLOCK.finditer(text) if match[2] == name)
    assert shown[0] == f"{shown[1]}{transform_docs.BLOCKS[name]()}{shown[3]}"

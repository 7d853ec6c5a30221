"""The committed results of `make e2e`: whole, near what they should be, and in the documents."""

import hashlib
import json
import re
from pathlib import Path

import pytest

import e2e_docs
import make_docs
from benchmarks.make_e2e import MODELS
from kvq_cli.profile import builtin_names, load_profile
from kvq_cli.steps.bound import needs_transform

ROOT = Path(__file__).parents[2]
RUNS = e2e_docs.load()


def rows(run):
    return {row["profile"]: row for row in run["rows"]}


def test_every_model_text_and_profile_is_there():
    """Two models, two texts each, all built-in profiles that need no calibration.

    The weights are those of make_e2e; results of the others stand in docs/transform.md.
    """
    found = [(run["model"], run["text"]) for run in RUNS]
    models = [weights.model for weights in MODELS.values()]
    assert found == [(model, text) for model in models for text in ("prose", "code")]
    digests = {weights.model: weights.sha256 for weights in MODELS.values()}
    plain = {name for name in builtin_names() if not needs_transform(load_profile(name))}
    for run in RUNS:
        assert set(rows(run)) == plain
        assert run["weights_sha256"] == digests[run["model"]]
        assert run["scored"] == 256 * run["windows"]
        assert {"torch", "transformers", "numpy"} < set(run["made"]["packages"])


def test_the_prose_is_that_of_the_sample_data():
    """The text that lies here is the one that was read."""
    text = (ROOT / "sample_data" / "pride-and-prejudice.txt").read_bytes()
    digests = {run["text_sha256"] for run in RUNS if run["text"] == "prose"}
    assert digests == {hashlib.sha256(text).hexdigest()}


def test_what_is_not_lost_changes_nothing():
    """To the last bit; and a cache that went through a file is the model's own, rounded to F16."""
    for run in RUNS:
        for name in ("lossless", "raw"):
            row = rows(run)[name]
            assert (row["change_percent"], row["kl"], row["top1"]) == (0, 0, 1)
        assert run["unstored"]["kl"] < 1e-5


def test_eight_bits_stay_within_half_a_percent():
    """As far as the tokens can tell: the change less its standard error."""
    for run in RUNS:
        for name in e2e_docs.EIGHT_BITS:
            row = rows(run)[name]
            assert abs(row["change_percent"]) - row["error_percent"] <= e2e_docs.LIMIT, (
                run["model"],
                name,
            )


def test_results_name_no_folder_of_a_machine():
    """Models and texts go by their names alone."""
    assert re.search(r"[\" ]/\w", json.dumps(RUNS)) is None


@pytest.mark.parametrize("name", sorted(e2e_docs.BLOCKS))
def test_documents_show_the_committed_results(name):
    """`make docs` would change no table of results."""
    page = "README.md" if name == "e2e-short" else "docs/e2e.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    (shown,) = (match for match in make_docs.BLOCK.finditer(text) if match[2] == name)
    assert shown[0] == f"{shown[1]}{e2e_docs.BLOCKS[name]()}{shown[3]}"

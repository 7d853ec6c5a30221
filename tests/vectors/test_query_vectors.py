"""formats/vectors/capture/queries.json: digests of queries, and queries that must be refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from reference.queries import digest

from kvq_cli.capture import open_capture
from kvq_cli.errors import KvqError
from kvq_cli.steps.probe import probe_of
from support.recipes import capture_bytes

ROOT = Path(__file__).parents[2]
VECTORS = json.loads((ROOT / "formats" / "vectors" / "capture" / "queries.json").read_text())
VALID = [case for case in VECTORS["cases"] if "digest" in case]
INVALID = [case for case in VECTORS["cases"] if "error" in case]


def found(case, folder):
    """The digest that kvq finds."""
    cache, asked = folder / "cache", folder / "asked"
    cache.write_bytes(capture_bytes(case.get("capture", VECTORS["capture"])))
    asked.write_bytes(capture_bytes(case["queries"]))
    with open_capture(cache) as capture, probe_of(capture, asked) as probe:
        return probe.digest


@pytest.mark.parametrize("case", VALID, ids=lambda case: case["what"])
def test_digests(case, tmp_path):
    """Both readers find the digest that the vector states."""
    assert digest(capture_bytes(case["queries"])) == case["digest"]
    assert found(case, tmp_path) == case["digest"]


@pytest.mark.parametrize("case", INVALID, ids=lambda case: case["what"])
def test_refusals(case, tmp_path):
    """What the spec forbids is refused with the stated id."""
    with pytest.raises(KvqError) as refusal:
        found(case, tmp_path)
    assert refusal.value.error_id == case["error"]


def test_the_file_is_what_the_tool_writes():
    """Nobody edits it by hand."""
    tool = ROOT / "tools" / "make_query_vectors.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")

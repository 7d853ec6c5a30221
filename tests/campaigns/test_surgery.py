"""Chunks swapped, dropped, doubled, forged or taken from other files: refused by every way in.

The cases are formats/vectors/container/invalid/surgery.json and those of its neighbours that cut
or swap chunks; tests/vectors holds both readers to their ids.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from kvq_cli import pipeline
from kvq_cli.errors import ContainerError, KvqError
from support import surgery
from support.golden import piped

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "container"
FIGURE = "named cases of chunk surgery, all refused"
KINDS = {"swap", "copy", "pieces", "reseal"}  # edits that are surgery wherever they stand
BASES = {
    path.stem: base64.b64decode(json.loads(path.read_text())["container"])
    for path in sorted((FOLDER / "valid").iterdir())
}
CASES = {
    f"{path.stem}-{case['id']} {case['what']}": case
    for path in sorted((FOLDER / "invalid").iterdir())
    for case in json.loads(path.read_text())["cases"]
    if path.stem == "surgery" or any(KINDS & edit.keys() for edit in case["edits"])
}
DECODED = ("E502", "E503")  # found by who decodes: the chunks are as they were written


def error_of(story, *arguments, **options):
    try:
        story(*arguments, **options)
    except KvqError as error:
        return error
    return None


def test_there_are_enough():
    """40 cases or more, of different names."""
    assert len(CASES) >= 40
    assert len({case["what"] for case in CASES.values()}) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_surgery(name, tmp_path, record_property):
    """verify, verify --quick, a pipe and decompress refuse it; inspect and slices never crash."""
    case, path = CASES[name], tmp_path / "cut.kvq"
    data = surgery.operate(BASES[case["base"]], case["edits"], BASES)
    path.write_bytes(data)
    with piped(data) as pipe:
        found = {
            "file": error_of(pipeline.verify, path, threads=1),
            "pipe": error_of(pipeline.verify, pipe, threads=1),
            "decompress": error_of(pipeline.decompress, path, tmp_path / "back", threads=1),
        }
    assert {how: error and error.error_id for how, error in found.items()} == dict.fromkeys(
        found, case["error"]
    )
    quick = error_of(pipeline.verify, path, quick=True)
    assert isinstance(quick, ContainerError) or case["error"] in DECODED
    assert not (tmp_path / "back").exists()
    error_of(pipeline.inspect, path, pages=True, tensors=True)
    cut = pipeline.Selection(chosen_tokens=(slice(0, 1),))
    error_of(pipeline.decompress, path, tmp_path / "part", selection=cut, threads=1)
    record_property("figure", (FIGURE, 1))

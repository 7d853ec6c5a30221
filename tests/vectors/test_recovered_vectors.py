"""formats/vectors/container/recovered.json: damaged containers, and what is left of them."""

from __future__ import annotations

import base64
import json
from itertools import product
from pathlib import Path

import pytest
from blake3 import blake3
from reference.reader import read

from kvq_cli.errors import KvqError
from kvq_cli.pipeline import decompress, recover, verify
from kvq_cli.steps.lost import Fill
from support.surgery import operate

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "container"
VALID = {
    path.stem: base64.b64decode(json.loads(path.read_text())["container"])
    for path in (FOLDER / "valid").iterdir()
}
CASES = json.loads((FOLDER / "recovered.json").read_text())["cases"]
by_what = {"ids": lambda case: f"{case['base']}: {case['what']}"}
every_case = pytest.mark.parametrize("case", CASES, **by_what)
recovered_case = pytest.mark.parametrize("case", [c for c in CASES if "error" not in c], **by_what)


def damaged(case, folder):
    path = folder / "damaged"
    path.write_bytes(operate(VALID[case["base"]], case["edits"]))
    return path


def text(data):
    return "blake3:" + blake3(data).hexdigest()


def lost_rows(container):
    """Role, batch, layer, head and token of each row that the pages leave out."""
    slabs = container.header.slabs.items()
    left = {
        (role, batch, layer, head, token)
        for (role, layer), slab in slabs
        for batch in range(slab.batch)
        for head in range(slab.heads)
        for token in range(slab.tokens)
    }
    for page in container.pages:
        heads = container.header.content["head_sets"][page.head_set]
        layers = range(page.layer, page.layer + page.layers)
        tokens = range(page.start, page.start + page.tokens)
        for row in product(layers, heads, tokens):
            left.remove((page.role, page.batch, *row))
    return left


def told_rows(rows):
    return {
        (("key", "value").index(row["role"]), row["batch"], row["layer"], head, token)
        for row in rows
        for span in row["heads"]
        for head in range(*span)
        for token in range(*row["tokens"])
    }


@every_case
def test_kvq_recovers_what_the_vector_states(case, tmp_path):
    """What is left and what is lost, told and written, or the error."""
    path, target = damaged(case, tmp_path), tmp_path / "target"
    if "error" in case:
        with pytest.raises(KvqError) as refusal:
            recover(path, target, threads=1)
        assert refusal.value.error_id == case["error"]
        assert not target.exists()
        return
    report = recover(path, target, threads=1).to_json()
    assert {name: report[name] for name in case.keys() & report.keys()} == {
        name: case[name] for name in case.keys() & report.keys()
    }
    for fill in Fill:
        back = tmp_path / fill
        decompress(target, back, partial=fill, threads=1)
        files = {"": back} if back.is_file() else {each.name: each for each in back.iterdir()}
        found = {name: text(file.read_bytes()) for name, file in files.items()}
        assert found.get("", found) == case[fill.value]


@recovered_case
def test_the_reference_reader_agrees(case, tmp_path):
    """The roots, the rows that are not there, and the files with zeros in their place."""
    recover(damaged(case, tmp_path), tmp_path / "target", threads=1)
    container = read(tmp_path / "target")
    assert text_of(container.content_root) == case["content_root"]
    assert text_of(container.file_root) == case["file_root"]
    assert lost_rows(container) == told_rows(case["lost"]["rows"])
    if not case["lost"]["files"]:
        files = {name: text(data) for name, data in container.files().items()}
        assert files.get("", files) == case["zero"]


def text_of(digest):
    return "blake3:" + digest.hex()


@recovered_case
def test_what_is_complete_is_the_container_that_it_was(case, tmp_path):
    """Byte for byte; what is not is verified only where it may be partial."""
    recover(damaged(case, tmp_path), tmp_path / "target", threads=1)
    again = tmp_path / "again"
    recover(tmp_path / "target", again, threads=1)
    assert again.read_bytes() == (tmp_path / "target").read_bytes()
    broken = {each["error_id"] for each in verify(tmp_path / "target", threads=1).broken}
    if case["complete"]:
        assert read(tmp_path / "target").content_root == read(VALID[case["base"]]).content_root
    assert broken == (set() if case["complete"] else {"E810"})
    assert not verify(tmp_path / "target", partial=True, threads=1).broken

"""formats/vectors/container: both readers on every container and every broken one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from reference.reader import Refused, read

from kvq_cli.errors import KvqError, ProfileError
from kvq_cli.pipeline import decompress, verify
from support import surgery
from support.bases import tables_of
from support.recipes import capture_files

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "formats" / "vectors" / "container"
VALID = {path.stem: json.loads(path.read_text()) for path in sorted((FOLDER / "valid").iterdir())}
BASES = {name: base64.b64decode(vector["container"]) for name, vector in VALID.items()}
UNUSUAL = json.loads((FOLDER / "unusual.json").read_text())["cases"]
INVALID = {
    f"{path.stem}-{case['id']}": case
    for path in sorted((FOLDER / "invalid").iterdir())
    for case in json.loads(path.read_text())["cases"]
}
every_vector = pytest.mark.parametrize("name", VALID)
every_invalid = pytest.mark.parametrize("name", INVALID)


def text(data):
    return "blake3:" + blake3(data).hexdigest()


def texts(files):
    """As a vector states them: the digest of one file, or of each of a folder."""
    found = {name: text(data) for name, data in files.items()}
    return found.get("", found)


def broken(name):
    case = INVALID[name]
    return surgery.operate(BASES[case["base"]], case["edits"], BASES)


@every_vector
def test_the_reference_reader_finds_what_the_vector_states(name):
    """Roots, the restored file and the bits of every tensor are those of the vector."""
    vector = VALID[name]
    container = read(BASES[name], tables_of(vector))
    assert "blake3:" + container.content_root.hex() == vector["content_root"]
    assert "blake3:" + container.file_root.hex() == vector["file_root"]
    assert texts(container.files()) == vector["restored"]
    assert {one: text(bits) for one, bits in container.named().items()} == vector["tensors"]
    assert texts(capture_files(vector["capture"])) == vector["source"]


@every_vector
def test_kvq_finds_what_the_vector_states(name, tmp_path):
    """kvq verifies the container, finds its roots and restores the same file."""
    vector, path = VALID[name], tmp_path / "container"
    path.write_bytes(BASES[name])
    report = verify(path, threads=1)
    assert (report.content_root, report.file_root) == (
        vector["content_root"],
        vector["file_root"],
    )
    back, given = tmp_path / "restored", {}
    if vector.get("refer"):
        given["calibration"] = tmp_path / "calibration"
        given["calibration"].write_bytes(base64.b64decode(vector["calibration"]))
        with pytest.raises(ProfileError):
            decompress(path, back, threads=1)
    decompress(path, back, threads=1, **given)
    files = {one: (back / one).read_bytes() for one in capture_files(vector["capture"])}
    assert texts(files) == vector["restored"]
    assert back.is_file() or {*os.listdir(back)} == {*files}


def test_the_files_are_what_the_tool_writes():
    """Containers are made again: bytes without entropy coding, else content and tensors."""
    tool = ROOT / "tools" / "make_container_vectors.py"
    done = subprocess.run(
        [sys.executable, str(tool), "--check"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@every_vector
def test_surgery_leaves_no_trace(name):
    """A container that is taken apart and put together is the same container."""
    assert surgery.put_together(surgery.take_apart(BASES[name])) == BASES[name]


@pytest.mark.parametrize("case", UNUSUAL, ids=lambda case: case["what"])
def test_what_is_allowed_but_unusual_is_read(case, tmp_path):
    """Both readers take it; content_root changes only where the case says so."""
    base = BASES[case["base"]]
    data = surgery.operate(base, case["edits"])
    container = read(data)
    assert (container.content_root == read(base).content_root) == case["same_content"]
    path = tmp_path / "container"
    path.write_bytes(data)
    report = verify(path, threads=1)
    assert report.content_root == "blake3:" + container.content_root.hex()
    assert report.file_root == "blake3:" + container.file_root.hex()
    decompress(path, tmp_path / "restored", threads=1)
    assert (tmp_path / "restored").read_bytes() == container.source()


@every_invalid
def test_the_reference_reader_refuses(name):
    """What the spec forbids is refused."""
    with pytest.raises(Refused):
        read(broken(name))


@every_invalid
def test_kvq_refuses(name, tmp_path):
    """kvq refuses it with the stated id."""
    path = tmp_path / "container"
    path.write_bytes(broken(name))
    with pytest.raises(KvqError) as refusal:
        verify(path, threads=1)
    assert refusal.value.error_id == INVALID[name]["error"]

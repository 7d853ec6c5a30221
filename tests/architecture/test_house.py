"""The house around the code: targets, sample data, copies of one thing, forgotten files."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from kvq_cli import __version__
from kvq_cli.profile import Profile, load_profile

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample_data"


def test_formats_hold_no_python():
    """formats/ is a contract for any language; sample_data/ has two examples, and is no package."""
    assert list((ROOT / "formats").rglob("*.py")) == []
    examples = {path.name for path in SAMPLES.rglob("*.py")}
    assert examples == {"capture_hf.py", "restore_hf.py", "hf_model.py"}


def test_schemas_are_json_schemas_and_copies_agree():
    """Each schema is valid; what kvq_cli brings along is formats/ to the byte."""
    import jsonschema

    for path in (ROOT / "formats" / "schemas").glob("*.json"):
        jsonschema.Draft202012Validator.check_schema(json.loads(path.read_text()))
    for path in (ROOT / "kvq_cli" / "schemas").glob("*.json"):
        assert path.read_bytes() == (ROOT / "formats" / "schemas" / path.name).read_bytes()


def test_the_manifest_of_the_sample_data_is_true():
    """Every file is listed, with its size and both digests."""
    listed = json.loads((SAMPLES / "MANIFEST.json").read_text())["files"]
    found = {
        path.relative_to(SAMPLES).as_posix(): path.read_bytes()
        for path in SAMPLES.rglob("*")
        if path.is_file()
        and path.name not in ("MANIFEST.json", "README.md", "demo.sh")
        and path.suffix not in (".py", ".pyc")
    }
    assert {each["file"] for each in listed} == set(found)
    for each in listed:
        data = found[each["file"]]
        assert each["bytes"] == len(data)
        assert each["sha256"] == hashlib.sha256(data).hexdigest()
        assert each["blake3"] == blake3(data).hexdigest()
    assert sum(map(len, found.values())) < 1_000_000


def test_sample_profiles_are_valid():
    """Their names are their file names, and all of them are lossy on purpose."""
    for path in (SAMPLES / "profiles").glob("*.json"):
        profile = load_profile(path)
        assert isinstance(profile, Profile)
        assert profile.name == path.stem
        assert profile.description


def test_make_alone_lists_every_target():
    """`make` prints one line for each target that is meant to be called."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("no make here")
    printed = subprocess.run([make, "-s"], cwd=ROOT, capture_output=True, text=True, check=True)
    targets = {line.split()[0] for line in printed.stdout.splitlines()}
    phony = re.search(r"\.PHONY: ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text())[1]
    assert targets == set(phony.replace("\\", " ").split())


def test_the_demo_shows_a_lossless_restore(tmp_path):
    """The demo ends well, prints what it runs, and leaves nothing behind."""
    kvq = tmp_path / "kvq"
    kvq.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kvq_cli "$@"\n')
    kvq.chmod(0o755)
    folder = tmp_path / "tmp"
    folder.mkdir()
    done = subprocess.run(
        ["sh", str(SAMPLES / "demo.sh")],
        env={"PATH": "/usr/bin:/bin", "KVQ": str(kvq), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "$ cmp cache.safetensors restored.safetensors\n" in done.stdout
    assert list(folder.iterdir()) == []


def test_one_version():
    """The version stands in kvq_cli and in the changelog."""
    assert f"({__version__})" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_licence_is_whole():
    """The full text of the Apache License 2.0, as its SPDX name promises."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text

"""The command line across Typer versions: the oldest allowed and the newest there is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.captures import canonical_capture
from support.shell import environment, listing
from support.versions import installed

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
USAGE = "kvq: error KVQ-E101"
WANTED = ("typer==0.21.*", "typer>=0.21,<0.29")
# What each prints, writes and ends with must not depend on Typer, but for the layout of its help.
CALLS = (
    "--version",
    "compress cache -p int8",
    "compress cache -p nosuch",
    "compress cache -p int8",
    "compress cache --level x",
    "compress cache missing -fp lossless -o out.kvq",
    "compress cache -p int8 -p raw --meta model=m -o two.kvq --json",
    "verify cache.kvq --min-ratio 99",
    "verify cache.kvq --against cache --explain",
    "inspect cache.kvq cache --tensors --ndjson",
    "stats cache -p int8 -p lossless",
    "decompress cache.kvq --layers 0 --tokens -3: --dtype f32 -o slice",
    "decompress cache.kvq --role nothing",
    "recover cache.kvq -o again.kvq",
    "profile list",
    "profile check int8 missing.json",
    "nosuchcommand",
    "compress",
    "",
)


@pytest.fixture
def typers(tmp_path):
    folders = [tmp_path / f"typer-{number}" for number in range(len(WANTED))]
    for wanted, folder in zip(WANTED, folders, strict=True):
        installed(wanted, folder, alone=False)
    yield folders
    for folder in folders:
        shutil.rmtree(folder)


def told(folder: Path, typer: Path) -> tuple[str, list[object]]:
    """Typer's version, and what every call prints, writes and ends with."""
    folder.mkdir()
    (folder / "cache").write_bytes(canonical_capture(tokens=30))
    variables = environment(PYTHONPATH=os.pathsep.join([str(typer), str(ROOT)]))
    command = [
        sys.executable,
        "-c",
        "from importlib.metadata import version as v; print(v('typer'))",
    ]
    version = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
    found: list[object] = []
    for line in CALLS:
        command = [sys.executable, "-m", "kvq_cli", *line.split()]
        ran = subprocess.run(
            command, cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        # What is wrong with a call is told in the parser's words.
        told = ran.stderr[: len(USAGE)] if ran.returncode == 2 else ran.stderr
        found.append((line, ran.returncode, ran.stdout, told))
        if line.split():
            help_of = [*command[:3], line.split()[0], "--help"]
            ran = subprocess.run(
                help_of, cwd=folder, env=variables, capture_output=True, check=False
            )
            found.append((ran.returncode, b"Examples:" in ran.stdout))
    return version.stdout.strip(), [*found, listing(folder)]


def test_the_command_line_is_the_same_in_two_typer_versions(tmp_path, typers, capsys):
    """Output, files and exit codes are the same under the oldest and the newest Typer."""
    (one, first), (other, second) = (
        told(tmp_path / f"run-{number}", typer) for number, typer in enumerate(typers)
    )
    assert one.startswith("0.21.")
    if one == other:
        pytest.skip(f"pip offers no Typer but {one}")
    for here, there in zip(first, second, strict=True):
        assert here == there
    with capsys.disabled():
        sys.stdout.write(f"\nTyper {one} and {other}: equal, {len(CALLS)} calls\n")

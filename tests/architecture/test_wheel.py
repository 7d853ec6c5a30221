"""What the wheel holds: kvq_cli with its data, and nothing else at the top."""

import os
import tomllib
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel of this tree, built without git on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    path, os.environ["PATH"] = os.environ["PATH"], str(folder)
    try:
        (artifact,) = WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    finally:
        os.environ["PATH"] = path
    with zipfile.ZipFile(artifact) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def test_one_top_level(wheel):
    """`formats`, `tests` and `tools` belong to other people's namespaces."""
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kvq_cli"}
    assert len(tops) == 2


def test_every_file_of_the_package_is_in(wheel):
    """Modules, stubs, py.typed, profiles and schemas are all there, with their bytes."""
    paths = [
        path
        for path in (ROOT / "kvq_cli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    expected = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in paths}
    found = {name: data for name, data in wheel.items() if name.startswith("kvq_cli/")}
    assert found == expected
    for name in ("py.typed", "__init__.pyi", "profiles/int8.json", "schemas/profile.schema.json"):
        assert f"kvq_cli/{name}" in found


def test_metadata_names_distribution_command_and_licence(wheel):
    """pip shows kvq-cli, the command is kvq, the licence is there."""
    (folder,) = {name.split("/")[0] for name in wheel if ".dist-info/" in name}
    assert b"\nName: kvq-cli\n" in wheel[f"{folder}/METADATA"]
    assert b"kvq = kvq_cli.__main__:main" in wheel[f"{folder}/entry_points.txt"]
    assert wheel[f"{folder}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_runtime_dependencies_are_the_six():
    """Another one must earn its place, and this line with it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {line.split(">")[0] for line in project["dependencies"]}
    assert names == {"numpy", "blake3", "zstandard", "safetensors", "typer", "rich"}

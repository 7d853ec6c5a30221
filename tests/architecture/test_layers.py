"""The direction of imports, as documented and as checked, is one list."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def layers():
    (contract,) = [each for each in CONTRACTS if each["type"] == "layers"]
    return contract["layers"]


def test_the_documented_layers_are_the_checked_ones():
    """docs/architecture.md and the import-linter contract list the same layers."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.search(r"```layers\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert listed == layers()


def test_every_module_lies_in_a_layer():
    """A module that no layer names would be free to import anything."""
    named = {name for line in layers() for name in line.split(" | ")}
    folder = ROOT / "kvq_cli"
    found = {f"kvq_cli.{path.stem}" for path in folder.glob("*.py") if path.stem[:2] != "__"}
    found |= {f"kvq_cli.{path.parent.name}" for path in folder.glob("*/__init__.py")}
    assert found == named


def test_all_but_the_shell_are_kept_from_typer_and_rich():
    """The contract about Typer and Rich names every layer below the shell."""
    named = {name for line in layers() for name in line.split(" | ")}
    (contract,) = [each for each in CONTRACTS if "typer" in each.get("forbidden_modules", [])]
    assert set(contract["source_modules"]) == named - {"kvq_cli.cli"}

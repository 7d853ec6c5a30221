"""Start-up is part of speed: what each command imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from support.captures import canonical_capture
from support.shell import COMMAND, done, environment

PROBE = """
import os, sys
sys.argv = ["kvq", *{arguments!r}]
from kvq_cli.__main__ import answer
code = answer()
assert code == 0, code
print("MODULES", *sys.modules)
"""


def imported(*arguments):
    """The modules that a command has imported when it ends."""
    code = PROBE.format(arguments=[str(each) for each in arguments])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    ).stdout
    return set(out[out.index("MODULES") :].split())


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version_imports_nothing(option):
    """--version is answered before Typer, NumPy or any part of kvq is there."""
    modules = imported(option)
    assert not modules & {"typer", "numpy", "rich", "safetensors", "zstandard", "blake3"}


@pytest.mark.parametrize("extra", [[], ["--json"], ["--pages"], ["--sums"]])
def test_inspect_of_a_container_needs_no_numpy(extra, tmp_path):
    """Header and index are read without NumPy, Rich or safetensors."""
    (tmp_path / "cache").write_bytes(canonical_capture())
    done("compress", tmp_path / "cache")
    modules = imported("inspect", tmp_path / "cache.kvq", *extra)
    assert not modules & {"numpy", "rich", "safetensors"}


def test_help_needs_no_numpy():
    """--help of kvq and of a command is answered by Typer alone."""
    assert not imported("--help") & {"numpy", "rich", "safetensors"}
    assert not imported("compress", "--help") & {"numpy", "rich", "safetensors"}
    assert not imported("profile", "list") & {"rich", "safetensors"}


def test_verify_does_not_import_rich(tmp_path):
    """Rich is for tables on terminals."""
    (tmp_path / "cache").write_bytes(canonical_capture())
    done("compress", tmp_path / "cache")
    assert "rich" not in imported("verify", tmp_path / "cache.kvq")
    assert "rich" not in imported("stats", tmp_path / "cache.kvq")


def test_shell_completion():
    """The shell is offered the commands that begin with what was typed."""
    told = environment(_KVQ_COMPLETE="complete_bash", COMP_WORDS="kvq comp", COMP_CWORD="1")
    ran = subprocess.run(COMMAND, capture_output=True, text=True, check=False, env=told)
    assert (ran.returncode, ran.stdout.split()) == (0, ["compress"])

"""versions: other releases of what kvq needs, each in a folder that PYTHONPATH can name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def installed(wanted: str, folder: Path, *, alone: bool = True) -> None:
    """Let pip put a release into a folder, `alone` or with what it needs; skip if it cannot."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    words = [*pip, "--only-binary=:all:", "--target", str(folder), wanted]
    done = subprocess.run(
        [*words, *(["--no-deps"] if alone else [])], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        pytest.skip(f"pip cannot install {wanted}: {reason}")

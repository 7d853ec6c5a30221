"""make_fuzz: what `make fuzz` needs: a virtual environment with atheris.

python fuzzing/make_fuzz.py [FOLDER]        .venv-fuzz of the repository without
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / ".venv-fuzz"
ATHERIS: Final = "atheris==3.0.0"


def install(python: Path, *what: str) -> int:
    """pip's exit code; what went wrong is told in one line by whoever asked."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what]
    return subprocess.run(command, check=False, capture_output=True).returncode


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"setting up {folder.name}: atheris and kvq (once)", flush=True)
        venv.create(folder, with_pip=True)
    if install(python, ATHERIS):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise SystemExit(f"make_fuzz: {ATHERIS} does not install for Python {version} here")
    if install(python, "--editable", str(ROOT)):
        raise SystemExit("make_fuzz: kvq does not install; pip install -e . says why")


if __name__ == "__main__":
    main()

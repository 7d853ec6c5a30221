"""make_peers: the virtual environment of other packages that `peers` measures.

    python benchmarks/make_peers.py [FOLDER]        .venv-peers of the repository without

Every package is installed by itself, so that one that does not install, or build, keeps no other
away; what failed is told and the benchmark goes without. torch is pinned to one release, whose
build for CPUs pip then takes: left to choose, it would fetch gigabytes for GPUs.

Five distributions bring a package called `turboquant`. Each goes without its dependencies into a
folder of its own, apart/NAME in the environment, which benchmarks.methods.apart imports from.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parents[1] / ".venv-peers"
NEEDED: Final = ("numpy>=2.1,<3", "zstandard>=0.23")
TORCH: Final = "torch==2.13.0"
# torch stands beside what needs it, so that pip cannot choose another one.
PEERS: Final = (
    (TORCH,),
    (TORCH, "optimum-quanto==0.2.7"),
    (TORCH, "hqq==0.2.8.post1"),
    ("ml_dtypes>=0.5",),
    ("gguf>=0.19",),
    ("blosc2>=4.14",),
    ("zipnn>=0.5.4",),
    ("pcodec>=1.1",),
    ("turboquant-pro==1.9.1",),
    (TORCH, "turboquantcpu==0.1.0"),
    (TORCH, "polarquant==0.6.0"),
    # What those apart need.
    (TORCH, "scipy>=1.14", "transformers==5.24.0"),
)
APART: Final = (
    "turboquant==0.2.0",
    "turboquant-torch==0.4.0",
    "turboquant-kv==1.0.0",
    "turboquant-py==0.1.0",
    "turbokv==0.1.0",
)


def install(python: Path, packages: tuple[str, ...], apart: Path | None = None) -> str:
    """Why it failed, the last line of it, or nothing."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    into = ["--upgrade", "--no-deps", "--target", str(apart)] if apart else []
    done = subprocess.run([*pip, *into, *packages], capture_output=True, text=True, check=False)
    lines = [line for line in done.stderr.splitlines() if "ERROR" in line.upper()]
    return "" if done.returncode == 0 else (lines or ["pip failed"])[-1].strip()


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    if why := install(python, NEEDED):
        print(f"make_peers: {', '.join(NEEDED)}: {why}", file=sys.stderr)
        return 1
    for packages in PEERS:
        print(f"{packages[-1]}: {install(python, packages) or 'installed'}", flush=True)
    for package in APART:
        name = package.partition("==")[0]
        why = install(python, (package,), folder / "apart" / name)
        print(f"{package}: {why or 'installed'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

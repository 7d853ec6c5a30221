"""environments: processes that differ in everything no byte may depend on.

    OPENBLAS_CORETYPE         a kernel that this machine can run, each under one name
    NPY_DISABLE_CPU_FEATURES  from none to all that this NumPy dispatches on and the CPU has
    OPENBLAS_NUM_THREADS, PYTHONHASHSEED, the number of kvq's own threads, the size of its jobs

Feature names come from NumPy itself and warnings are errors in the processes, so a name that
NumPy does not know fails instead of passing for a difference. A core type that OpenBLAS cannot
run, or runs as another one's kernel, is left out and counted.
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "exactness" / "digests.py"
ROOT = Path(__file__).parents[2]
X86 = ("Haswell", "Sandybridge", "Prescott", "Nehalem", "SkylakeX", "Zen", "Cooperlake")
ARM = ("ARMV8", "NEOVERSEN1", "NEOVERSEV1", "NEOVERSEN2", "CORTEXA57", "THUNDERX2T99", "VORTEX")
VARIED = ("OPENBLAS_", "NPY_", "OMP_", "MKL_", "GOTO_", "BLIS_", "KVQ_", "PYTHON")


@dataclass(frozen=True, slots=True)
class Environment:
    """One row of the matrix."""

    kernel: str = ""
    disabled: tuple[str, ...] = ()
    blas_threads: int = 1
    hash_seed: str = "0"
    threads: int = 1
    batch: int = 1 << 20  # bytes in one job

    def variables(self) -> dict[str, str]:
        chosen = {
            "OPENBLAS_NUM_THREADS": str(self.blas_threads),
            "PYTHONHASHSEED": self.hash_seed,
        }
        if self.kernel:
            chosen["OPENBLAS_CORETYPE"] = self.kernel
        if self.disabled:
            chosen["NPY_DISABLE_CPU_FEATURES"] = " ".join(self.disabled)
        return chosen


def call(
    words: Sequence[str], variables: Mapping[str, str], path: Sequence[Path] = ()
) -> subprocess.CompletedProcess[str]:
    """digests.py with nothing inherited of what is varied; warnings are errors."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(VARIED)}
    modules = os.pathsep.join(str(each) for each in (*path, ROOT, ROOT / "tests"))
    return subprocess.run(
        [sys.executable, "-W", "error", str(SCRIPT), *words],
        env={**inherited, "PYTHONPATH": modules, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def answer(
    words: Sequence[str], variables: Mapping[str, str], path: Sequence[Path] = ()
) -> dict[str, Any]:
    """What digests.py says; it must end well."""
    done = call(words, variables, path)
    assert done.returncode == 0, f"{dict(variables)}: {done.returncode}\n{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kernels(most: int) -> tuple[list[str], list[str]]:
    """Names of core types that run different kernels here, and those left out.

    The first is empty: OpenBLAS decides. No name at all means there is no OpenBLAS to vary.
    """
    by_default = answer(["kernel"], {})["kernel"]
    if not by_default:
        return [], []
    seen, chosen, left_out = {by_default.lower()}, [""], []
    for name in X86 if platform.machine() in ("x86_64", "AMD64") else ARM:
        if len(chosen) == most:
            break
        done = call(["kernel"], {"OPENBLAS_CORETYPE": name})
        # A kernel of instructions that the CPU lacks ends by SIGILL.
        got = json.loads(done.stdout)["kernel"].lower() if done.returncode == 0 else ""
        if not got or got in seen:
            left_out.append(name)
            continue
        seen.add(got)
        chosen.append(name)
    return chosen, left_out


def feature_sets(most: int) -> list[tuple[str, ...]]:
    """Features to disable: none, then more and more from the newest down, at last all."""
    from numpy._core import _multiarray_umath as core

    present = [name for name in core.__cpu_dispatch__ if core.__cpu_features__[name]]
    steps = min(most - 1, len(present))
    counts = [round(len(present) * step / steps) for step in range(1, steps + 1)]
    return [(), *(tuple(present[-count:]) for count in counts)]


def environments(
    kernels: Sequence[str], disabled: Sequence[tuple[str, ...]], count: int
) -> list[Environment]:
    """`count` different ones; with len(kernels) · len(disabled) of them, every pair is there."""
    found = []
    for number in range(count):
        turn, at = divmod(number, len(kernels))
        found.append(
            Environment(
                kernel=kernels[at],
                disabled=disabled[(at + turn) % len(disabled)],
                blas_threads=(1, 2, 4)[(number // 2) % 3],
                hash_seed=("0", "1", "random")[(number + turn) % 3],
                threads=(1, 2, 3)[(number + turn) % 3],
                batch=(1 << 20, 1, 1 << 16)[(number + turn) % 3],
            )
        )
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of digests that are not the same in both."""
    names = itertools.chain(one, (name for name in other if name not in one))
    return [name for name in names if one.get(name) != other.get(name)]

"""machine: where, when and with what a part of the results was made."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import rounds

# What glibc is told so that every process keeps the memory of its temporaries. By its own rules
# it may give them back after each call, and fault them in again: a cast to float32 then takes a
# quarter longer in one process than in another. BLAS and OpenMP start with one thread.
STEADY: Final = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 25),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
}
CAST: Final = "KVQ_BENCH_CAST"  # nanoseconds of A in a process that has it fast
TRIED: Final = "KVQ_BENCH_TRIED"
MOST_TRIES: Final = 12
NEAR: Final = 1.06
PACKAGES: Final = ("kvq-cli", "numpy", "blake3", "zstandard", "safetensors")


def steady() -> None:
    """Start this process anew under STEADY, unless it already runs so."""
    if any(os.environ.get(name) != value for name, value in STEADY.items()):
        sys.stdout.flush()
        os.execve(sys.executable, sys.orig_argv, {**os.environ, **STEADY})  # noqa: S606 - itself


def settle() -> None:
    """Start this process anew until A is as fast in it as in the best of a few processes.

    NumPy's cast takes a quarter longer in some processes than in others, for as long as they
    live: it depends on where the system happens to put its code. Codecs do not feel it, so a
    slow A would flatter them.
    """
    if CAST not in os.environ:
        words = [sys.executable, "-m", "benchmarks.rounds"]
        tries = [float(subprocess.check_output(words)) for _ in range(8)]
        os.environ[CAST] = str(min(tries))
    tried = int(os.environ.get(TRIED, "0"))
    if tried < MOST_TRIES and rounds.cast_now() > NEAR * float(os.environ[CAST]):
        sys.stdout.flush()
        again = {**os.environ, TRIED: str(tried + 1)}
        os.execve(sys.executable, sys.orig_argv, again)  # noqa: S606 - itself
    os.environ.pop(TRIED, None)  # children count for themselves


def plain() -> dict[str, str]:
    """The environment of commands: as a user has it, who keeps the bytecode of what he runs."""
    ours = {*STEADY, CAST, TRIED, "PYTHONDONTWRITEBYTECODE"}
    return {name: value for name, value in os.environ.items() if name not in ours}


def made(command: str) -> dict[str, Any]:
    """The member `made` of every part."""
    return {
        "command": command,
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "zstd": _zstd(),
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    name = next((line for line in lines if line.startswith("model name")), "")
    return name.partition(":")[2].strip() or platform.processor() or platform.machine()


def _zstd() -> str | None:
    """The version of the command, None where there is none."""
    if shutil.which("zstd") is None:
        return None
    told = subprocess.run(["zstd", "--version"], capture_output=True, text=True, check=True).stdout
    return next((word.strip(",") for word in told.split() if word.startswith("v")), told.strip())

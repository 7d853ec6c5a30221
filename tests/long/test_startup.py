"""Start-up is part of speed: CPU time next to `python -c "import numpy"` in the same run."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from kvq_cli import pipeline
from support.captures import canonical_capture

pytestmark = pytest.mark.long
ROUNDS = 9


def kvq():
    """The installed command, or the module where there is none."""
    script = Path(sys.executable).with_name("kvq")
    return [str(script)] if script.exists() else [sys.executable, "-m", "kvq_cli"]


def cpu_seconds(words):
    """User and system time of one child."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(words, stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def test_start_up_costs_little_more_than_numpy(tmp_path, capsys):
    """--version takes at most 0.6, inspect at most 2.5 of NumPy's import; medians of 9 runs."""
    capture, box = tmp_path / "small.safetensors", tmp_path / "small.kvq"
    capture.write_bytes(canonical_capture())
    pipeline.compress(capture, box)
    commands = {
        "import numpy": [sys.executable, "-c", "import numpy"],
        "kvq --version": [*kvq(), "--version"],
        "kvq inspect": [*kvq(), "inspect", str(box)],
        "kvq verify": [*kvq(), "verify", str(box)],
    }
    for words in commands.values():
        cpu_seconds(words)  # the first run fills caches of files and byte code
    times = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, words in commands.items():
            times[name].append(cpu_seconds(words))
    middle = {name: median(found) for name, found in times.items()}
    parts = {name: spent / middle["import numpy"] for name, spent in middle.items()}
    with capsys.disabled():
        for name, spent in middle.items():
            sys.stdout.write(f"\n{name:14} {spent * 1000:6.0f} ms CPU  {parts[name]:5.2f}")
        sys.stdout.write("\n")
    assert parts["kvq --version"] <= 0.6
    assert parts["kvq inspect"] <= 2.5

"""Memory is bounded by the page, not by the capture: 4 GB go through each command."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
TOOL = Path(__file__).parents[2] / "tools" / "make_capture.py"
SIZE = 4 << 30
PEAK = 400 << 20
FREE = 12 << 30
# A child's peak begins with that of the process it was forked from, so a small one stands
# between the command and pytest.
PROBE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


def peak(*words):
    """The largest resident size of a kvq command, in bytes."""
    probe = [sys.executable, "-S", "-c", PROBE, sys.executable, "-m", "kvq_cli"]
    done = subprocess.run([*probe, *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout) * 1024


@pytest.fixture(scope="module", params=["zeros", "rows"])
def capture(request):
    """A folder with a 4 GB capture called `source`, as a hole or as 4 GB of rows."""
    with tempfile.TemporaryDirectory(prefix="kvq-limits-") as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < FREE:
            pytest.skip(f"fewer than 12 GB are free at {folder.parent}")
        sparse = ["--sparse"] if request.param == "zeros" else []
        words = [sys.executable, str(TOOL), str(folder / "source"), f"--bytes={SIZE}", *sparse]
        subprocess.run(words, check=True)
        yield folder


@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_no_command_needs_memory_for_the_capture(capture, profile, capsys):
    """compress, inspect, verify, stats and decompress of 4 GB stay below 400 MB."""
    source, box, restored = (capture / name for name in ("source", "box.kvq", "restored"))
    commands = {
        "compress": ("compress", "-q", "-p", profile, source, "-o", box),
        "inspect": ("inspect", box),
        "verify": ("verify", "-q", box),
        "stats": ("stats", "-q", box, "--against", source),
        "decompress": ("decompress", "-q", box, "-o", restored),
    }
    try:
        peaks = {name: peak(*words) for name, words in commands.items()}
        assert restored.stat().st_size == source.stat().st_size
    finally:
        box.unlink(missing_ok=True)
        restored.unlink(missing_ok=True)
    with capsys.disabled():
        sizes = ", ".join(f"{name} {size >> 20}" for name, size in peaks.items())
        sys.stdout.write(f"\n{profile}, peak in MB: {sizes}\n")
    assert max(peaks.values()) < PEAK


def test_three_profiles_with_attention_stay_small(tmp_path, capsys):
    """What three profiles would do to 2 GB, attention of each included, takes less than 500 MB.

    A budget looks at the same pages again and again, and stays below that too.
    """
    source, profile = tmp_path / "source", tmp_path / "p.json"
    if shutil.disk_usage(tmp_path).free < FREE:
        pytest.skip(f"fewer than 12 GB are free at {tmp_path}")
    sizes = ["--layers=8", "--heads=8", "--channels=128"]
    subprocess.run(
        [sys.executable, str(TOOL), str(source), f"--bytes={2 << 30}", *sizes], check=True
    )
    three = [word for name in ("int8", "int4", "turboquant-4bit") for word in ("-p", name)]
    budget = {"max_attention_tv": 0.02, "min_attention_cosine": 0.99}
    rules = [{"codec": {"name": "int8", "center": True}}]
    told = {"schema": "kvq_profile_v1", "name": "p", "rules": rules, "budget": budget}
    profile.write_text(json.dumps(told))
    found = {
        "stats": peak("stats", "-q", source, *three, "--queries", "self"),
        "budget": peak("compress", "-q", source, "-p", profile, "-o", tmp_path / "box.kvq"),
    }
    with capsys.disabled():
        print("", *(f"{name}: {size >> 20} MB" for name, size in found.items()))  # noqa: T201
    assert max(found.values()) < 500 << 20

"""The law of exactness across NumPy versions: the oldest allowed and the newest there is."""

from __future__ import annotations

import shutil
import sys

import pytest

from support.environments import answer, call, differences
from support.versions import installed

pytestmark = pytest.mark.long
WANTED = ("numpy==2.1.*", "numpy>=2.1,<3")


@pytest.fixture
def numpies(tmp_path):
    """A folder for each wanted NumPy, which takes the place of the installed one."""
    folders = [tmp_path / f"numpy-{number}" for number in range(len(WANTED))]
    for wanted, folder in zip(WANTED, folders, strict=True):
        installed(wanted, folder)
    yield folders
    for folder in folders:
        shutil.rmtree(folder)


def test_bytes_are_the_same_in_two_numpy_versions(tmp_path, numpies, capsys):
    """Every codec gives the same bytes under the oldest and the newest NumPy."""
    folder = tmp_path / "set"
    prepared = call(["prepare", str(folder)], {})
    assert prepared.returncode == 0, prepared.stderr
    (folder / "work").mkdir()
    words = ["run", str(folder), str(folder / "work"), "2", "1"]
    found = [answer(words, {}, [numpy]) for numpy in numpies]
    versions = [each["numpy"] for each in found]
    assert versions[0].startswith("2.1.")
    if versions[0] == versions[1]:
        pytest.skip(f"pip offers no NumPy but {versions[0]}")
    assert found[0]["digests"]
    assert not differences(found[0]["digests"], found[1]["digests"]), versions
    with capsys.disabled():
        sys.stdout.write(f"\nNumPy {' and '.join(versions)}: equal\n")

"""The README's tour and its Python example, run line by line in a copy of sample_data/."""

import doctest
import re
import shutil
from pathlib import Path

import pytest

import make_docs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A copy of sample_data/ in which the tour was run, and what its blocks printed."""
    copied = tmp_path_factory.mktemp("tour") / "sample_data"
    shutil.copytree(ROOT / "sample_data", copied)
    printed = [make_docs.replay(match[2], copied) for match in make_docs.CONSOLE.finditer(README)]
    return copied, printed


def test_the_tour_prints_what_the_readme_shows(folder):
    """Every `$ ` line gives the lines below it; sizes may differ under another zstd."""
    sizes = f"with zstd {make_docs.ZSTD}" in README
    shown = [match[2] for match in make_docs.CONSOLE.finditer(README)]
    assert len(shown) > 3
    for block, printed in zip(shown, folder[1], strict=True):
        assert make_docs.comparable(printed, sizes) == make_docs.comparable(block, sizes)


def test_the_tour_shows_every_command_of_the_five():
    """compress, decompress, inspect, verify and stats each occur."""
    shown = "".join(match[2] for match in make_docs.CONSOLE.finditer(README))
    for command in ("compress", "decompress", "inspect", "verify", "stats"):
        assert f"kvq {command} " in shown


def test_the_python_example_works(folder, monkeypatch):
    """The doctest in the README holds, in the folder that the tour left behind."""
    monkeypatch.chdir(folder[0])
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    test = doctest.DocTestParser().get_doctest(example, {}, "README.md", "README.md", 0)
    told = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=told.append)
    assert result.failed == 0, "".join(told)
    assert result.attempted > 5

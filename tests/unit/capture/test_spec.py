"""formats/capture.md and the code name the same dtypes, spellings and keys."""

from __future__ import annotations

import re
from pathlib import Path

from kvq_cli.capture import ADAPTERS
from kvq_cli.capture.facts import IDENTITY
from kvq_cli.capture.hf import SPELLINGS
from kvq_cli.words import ELEMENT_BITS

PAGE = (Path(__file__).parents[3] / "formats" / "capture.md").read_text()


def section(title: str) -> str:
    """The text under a heading, up to the next one."""
    return re.split(r"\n#+ ", PAGE.split(f"# {title}\n", 1)[1])[0]


def test_dtypes() -> None:
    """The table of dtypes is the parser's, and the writer's order is the table's."""
    rows = re.findall(r"^\| (\d+) \| (`.*`) \|$", section("Header"), re.MULTILINE)
    stated = {dtype: int(bits) for bits, names in rows for dtype in re.findall(r"`(\w+)`", names)}
    assert stated == ELEMENT_BITS
    order = next(line for line in PAGE.splitlines() if line.startswith("* tensors by dtype"))
    assert re.findall(r"`([A-Z]\w+)`", order) == list(ELEMENT_BITS)


def test_layouts() -> None:
    """Every adapter has its section, and every spelling of the table is recognised once."""
    assert all(f"\n### {name}\n" in PAGE for name in ADAPTERS)
    rows = re.findall(r"^\| `(.*N.*)` \| `(.*N.*)` \|$", section("hf"), re.MULTILINE)
    assert len(rows) == len(SPELLINGS)
    for key, value in rows:
        for name, group in ((key, True), (value, False)):
            found = [one.fullmatch(name.replace("N", "12")) for one in SPELLINGS]
            matches = [match for match in found if match]
            assert [bool(match["key"]) for match in matches] == [group]


def test_identity() -> None:
    """The closed list of identity keys is the page's."""
    line = next(line for line in PAGE.splitlines() if line.startswith("A container's `identity`"))
    assert tuple(re.findall(r"`(\w+)`", line)[1:]) == IDENTITY

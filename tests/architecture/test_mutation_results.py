"""The committed results of `make mutation`: whole, good enough, and every survivor explained."""

from __future__ import annotations

import re

import pytest

import mutation_docs
from mutating import results
from mutating.scope import AREAS, ROOT, area_of, file_of

MODULES = results.load()
LEAST = 90  # percent of mutants that tests must notice


def test_every_module_in_scope_is_there():
    """And no other; their files and tests exist."""
    assert list(MODULES) == [each for area in AREAS.values() for each in area.modules]
    for module, row in MODULES.items():
        assert file_of(module).is_file()
        assert row["area"] == area_of(module)
    for area in AREAS.values():
        assert all((ROOT / test).exists() for test in area.tests)


@pytest.mark.parametrize("module", MODULES)
def test_totals_add_up(module):
    """Every mutant was killed, ran too long, or is listed."""
    row = MODULES[module]
    assert row["mutants"] == row["killed"] + row["timeouts"] + row["survived"]
    assert row["survived"] == len(row["survivors"])


@pytest.mark.parametrize("area", AREAS)
def test_tests_notice_nine_of_ten(area):
    """In every area by itself."""
    rows = [row for row in MODULES.values() if row["area"] == area]
    assert results.totals(rows)["percent"] >= LEAST


def test_every_survivor_is_explained():
    """By one of the known reasons, in a few words."""
    for module, row in MODULES.items():
        for each in row["survivors"]:
            kind, _, words = each["why"].partition(": ")
            assert kind in results.KINDS, (module, each)
            assert words, (module, each)


def test_the_tables():
    """One row a module, an area and all; every reason with its count."""
    table = mutation_docs.mutation_block()
    assert table.count("\n") == 3 + len(MODULES) + len(AREAS)
    counts = re.findall(r"\| *(\d+) *\|$", mutation_docs.reasons_block(), re.MULTILINE)
    assert sum(map(int, counts)) == sum(row["survived"] for row in MODULES.values())

"""models: frozen tables are what the densities give, and what coders take from them."""

from __future__ import annotations

from math import gamma

import make_models
import numpy as np
import pytest
from reference import coefficients as reference

from kvq_cli.numerics.models import (
    DIVISION,
    ESCAPE,
    WHOLE,
    by_class,
    decoding,
    encoding,
    models,
    of_symbols,
    values_of,
)

TABLES = range(len(models().frequencies))
CLASSES = range(1, len(models().classes))
UNSHIFTED = [number for number in CLASSES if not models().classes[number].shift]


def test_both_copies_are_what_the_tool_makes():
    """What the program uses is what formats/ has and what the densities give."""
    package, contract = make_models.TARGETS
    assert package.read_bytes() == contract.read_bytes() == make_models.frozen()


def test_the_reference_reads_the_same():
    """Classes, frequencies and costs, read from the spec alone."""
    classes, tables, costs = reference.models()
    found = models()
    assert [(m.table, m.shift, *m.shortfalls) for m in found.classes] == classes
    assert [table.tolist() for table in found.frequencies] == [table for _, table in tables]
    assert found.costs.tolist() == costs


@pytest.mark.parametrize("table", TABLES)
def test_frequencies_are_a_distribution(table):
    """All symbols occur, both signs alike, and the parts make a whole."""
    frequencies = models().frequencies[table].astype(int)
    values = frequencies[:-1]
    assert frequencies.min() >= 1
    assert frequencies.max() < WHOLE
    assert frequencies.sum() == WHOLE
    assert np.array_equal(values, values[::-1])
    assert len(values) % 2 == 1


def test_classes_differ():
    """No two classes code alike."""
    seen = {
        (models().frequencies[model.table].tobytes(), model.shift) for model in models().classes[1:]
    }
    assert len(seen) == len(CLASSES) <= 250


@pytest.mark.parametrize("shape", make_models.SHAPES)
@pytest.mark.parametrize("scale", [0.3, 1.0, 5.0, 14.0])
def test_masses_are_those_of_the_density(shape, scale):
    """Held against a sum over a fine grid, which shares nothing with the tool's."""
    count = 300
    mass, means = make_models.cells(shape, scale, 0.56, count)
    y = (np.arange(3_000_000) + 0.5) / 10_000
    width = scale * np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    dense = np.exp(-((y / width) ** shape))
    dense /= 2 * dense.sum()
    cells = np.where(y < 0.56, 0, np.rint(y).astype(int))
    assert np.abs(np.bincount(cells, dense)[:count] - mass).max() < 1e-4
    found = np.bincount(cells, dense * y)[:4] / np.bincount(cells, dense)[:4]
    assert np.abs(found - means[:4]).max() < 2e-3
    assert np.sqrt(2 * (dense * y * y).sum()) == pytest.approx(scale, rel=2e-3)


@pytest.mark.parametrize("shape", make_models.SHAPES)
def test_a_table_costs_little_more_than_its_density(shape):
    """Rounding to parts of 4096, none of them less than one, costs 0.016 bits at most."""
    for scale in make_models.ladder(shape):
        mass = 2 * make_models.cells(shape, scale, 0.56, make_models.CELLS)[0]
        found = make_models.frequencies(mass / 2)[:-1] / WHOLE
        found[1:] *= 2
        mass = np.maximum(mass[: len(found)], 1e-300)
        loss = (mass * np.log2(mass / found)).sum()
        assert loss < 0.016, scale


@pytest.mark.parametrize("number", UNSHIFTED)
def test_restored_values_lie_in_their_cells(number):
    """A restored coefficient is nearer to its own value than to the next."""
    values, restored = of_symbols(number, whole=True)[:-1], of_symbols(number, whole=False)[:-1]
    assert np.abs(restored - 16 * values).max() < 8
    assert np.array_equal(restored, -restored[::-1])
    assert restored[len(values) // 2] == 0


@pytest.mark.parametrize("table", TABLES)
def test_slots_are_symbols_in_their_order(table):
    """Slot by slot: the symbol, its frequency, and the place within it."""
    number = next(n for n in CLASSES if models().classes[n].table == table)
    frequencies, found = models().frequencies[table].astype(int), decoding(table)
    symbols = np.repeat(np.arange(len(frequencies)), frequencies)
    starts = np.cumsum(frequencies) - frequencies
    assert np.array_equal(found.frequencies, frequencies[symbols])
    assert np.array_equal(found.offsets, np.arange(WHOLE) - starts[symbols])
    assert np.array_equal(values_of(number, whole=True), of_symbols(number, whole=True)[symbols])
    assert values_of(number, whole=True)[-1] == values_of(number, whole=False)[-1] == ESCAPE
    first, known = int(by_class().firsts[number]), encoding()
    here = slice(first, first + len(frequencies))
    assert np.array_equal(known.starts[here], starts)
    assert np.array_equal(known.rests[here], WHOLE - frequencies)
    assert np.array_equal(known.limits[here], frequencies << 20)


def test_division_is_exact():
    """By every frequency: at both ends of each state range, and around multiples."""
    f = np.arange(1, WHOLE, dtype=np.uint64)
    inverses = (np.uint64((1 << DIVISION) - 1) + f) // f
    top = f << np.uint64(20)
    rng = np.random.default_rng(1)
    for _ in range(200):
        whole = rng.integers(0, 1 << 20, len(f), dtype=np.uint64)
        for x in (whole * f, whole * f + f - 1, top - np.uint64(1), top - f):
            assert np.array_equal((x * inverses) >> np.uint64(DIVISION), x // f)
    # The largest products there are do not overflow.
    assert all((int(t) - 1) * int(i) < 1 << 64 for t, i in zip(top, inverses, strict=True))


def test_encoding_divides_by_these():
    """Inverses in the look-ups are those that were tried."""
    frequencies = np.concatenate(models().frequencies).astype(object)
    expected = [-(-(1 << DIVISION) // int(f)) for f in frequencies]
    assert encoding().inverses.tolist() == expected


def test_costs_are_logarithms():
    """In units of 1/64 bit."""
    frequencies = np.arange(1, WHOLE)
    assert np.abs(models().costs[1:] - 64 * np.log2(WHOLE / frequencies)).max() <= 0.5
    assert models().costs[0] == 0

"""Quality budgets on real captures with the models' own queries, from loose to strict.

What is written is restored and measured by plain NumPy (tests/reference/attention.py): every
budget holds for every layer and query head, and the ratio never grows when a bound tightens.
The figures are printed as a table.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reference.attention import drift

from kvq_cli import pipeline
from kvq_cli.advice import suggest
from kvq_cli.profile import Budget, builtin_names, load_profile, parse_profile
from support.real import QUERIES, by_layer, captures, floats, header_of, print_table, tensors

pytestmark = pytest.mark.long
METRIC = {
    "max_attention_tv": "attention_tv",
    "max_topk_disagreement": "topk_disagreement",
    "min_attention_cosine": "attention_cosine",
}
BUDGETS = (
    {"max_attention_tv": 0.2},
    {"max_attention_tv": 0.1, "min_attention_cosine": 0.97},
    {"max_attention_tv": 0.05, "min_attention_cosine": 0.99, "max_topk_disagreement": 0.15},
    {"max_attention_tv": 0.02, "min_attention_cosine": 0.998, "max_topk_disagreement": 0.08},
    {"max_attention_tv": 0.0, "min_attention_cosine": 0.9999999, "max_topk_disagreement": 0.0},
)
COLUMNS = ("capture, budget", "ratio", "raw", "tv", "top k", "cosine")


@pytest.fixture(scope="module")
def table(request):
    """Rows that are printed when the last capture is done."""
    rows = []
    yield rows
    print_table(request, COLUMNS, rows)


def with_queries():
    for each in captures():
        path = each.values[0]
        if path is None or path.with_name(path.stem + QUERIES).exists():
            yield each


def worst(asked, path, before, after):
    """The worst of each bounded metric over layers and query heads."""
    found = {name: (dtype, bits) for name, dtype, bits in tensors(asked)}
    metadata = header_of(asked)[1]["__metadata__"]
    queries, scale = floats(*found["query"])[0], float(metadata["attention_scale"])
    causal = metadata["causal"].startswith("true")
    rows = {name: [] for name in METRIC}
    for layer, each in enumerate(queries):
        sides = [
            tuple(floats(*side[f"layers.{layer}.{role}"])[0] for role in ("key", "value"))
            for side in (before, after)
        ]
        tokens = sides[0][0].shape[1]
        positions = found["positions"][1].tolist()
        sees = [position + 1 if causal else tokens for position in positions]
        measured = drift(each, sees, *sides, scale)
        for bound, name in METRIC.items():
            rows[bound].extend(measured[name])
    return {b: (min if b.startswith("min_") else max)(each) for b, each in rows.items()}


@pytest.mark.parametrize("path", list(with_queries()))
def test_budgets_hold_on_real_captures(path, tmp_path, table):
    """Five of them; the last one asks for nothing to change."""
    asked, box = path.with_name(path.stem + QUERIES), tmp_path / "box.kvq"
    pipeline.compress(path, box, profiles=["lossless"])
    before = by_layer(box, tmp_path / "before")
    ratios = []
    for number, budget in enumerate(BUDGETS):
        profile = parse_profile(load_profile("int4").to_json() | {"budget": budget})
        report = pipeline.compress(path, box, profiles=[profile], queries=asked, force=True)
        found = worst(asked, path, before, by_layer(box, tmp_path / "after"))
        for name, bound in budget.items():
            assert found[name] >= bound if name.startswith("min_") else found[name] <= bound
        told = pipeline.verify(box, against=path, queries=asked)
        assert not told.broken
        ratios.append(report.ratio)
        raw = report.raw_pages.get("budget", 0)
        figures = [f"{found[name]:.4f}" for name in METRIC]
        table.append((f"{path.stem[:34]}, {number}", f"{report.ratio:.3f}", raw, *figures))
    assert ratios == sorted(ratios, reverse=True)
    assert np.unique(ratios).size >= 3


SUGGESTED = {"max_attention_tv": 0.05, "min_attention_cosine": 0.98}
SMALL = 8 << 20  # larger captures would take minutes


@pytest.mark.parametrize("path", list(with_queries()))
def test_what_is_suggested_is_smallest(path, tmp_path):
    """Its file keeps the budget, and no built-in profile's file is 3 % smaller."""
    if path.stat().st_size > SMALL:
        pytest.skip(f"{path.name} is larger than {SMALL >> 20} MB")
    asked, box = path.with_name(path.stem + QUERIES), tmp_path / "box.kvq"
    budget = Budget(**SUGGESTED)
    best = suggest(path, budget, queries=asked)
    terms = {"queries": asked, "force": True}
    size = pipeline.compress(path, box, profiles=[parse_profile(best.profile)], **terms).file_bytes
    assert not pipeline.verify(box, against=path, queries=asked).broken
    for name in builtin_names():
        profile = load_profile(name)
        if not profile.rules[0].codec.lossless:
            profile = replace(profile, budget=budget)
            other = pipeline.compress(path, box, profiles=[profile], **terms).file_bytes
            assert size <= 1.03 * other, name

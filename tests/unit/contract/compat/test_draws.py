"""Draws: distributions, and a stream that does not depend on how it is buffered."""

from __future__ import annotations

import math
import statistics

import pytest

from kvq_cli.contract.compat import draws as module
from kvq_cli.contract.compat import ziggurat
from kvq_cli.contract.compat.draws import Draws

COUNT = 20_000


@pytest.mark.parametrize("table", [ziggurat.normal(), ziggurat.exponential()])
def test_tables_are_steps_under_a_density(table: ziggurat.Table) -> None:
    """Edges fall to 0 and heights rise to 1, strictly."""
    assert len(table.edges) == len(table.heights) == ziggurat.LAYERS + 1
    assert (table.edges[-1], table.heights[-1]) == (0.0, 1.0)
    assert list(table.edges) == sorted(set(table.edges), reverse=True)
    assert list(table.heights) == sorted(set(table.heights))


def test_a_refill_loses_no_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer's size changes no number, wherever it ends within one."""
    whole = Draws(3)
    expected = [each for _ in range(4_000) for each in (whole.normal(), whole.gamma(1.5))]
    monkeypatch.setattr(module, "_BLOCKS", 3)
    parts = Draws(3)
    assert [each for _ in range(4_000) for each in (parts.normal(), parts.gamma(1.5))] == expected


def test_normals_are_normal() -> None:
    """Mean, variance and the share beyond the last edge are those of the normal distribution."""
    draws = Draws(1)
    values = [draws.normal() for _ in range(COUNT)]
    assert abs(statistics.fmean(values)) < 0.03
    assert abs(statistics.pvariance(values) - 1.0) < 0.04
    tail = [value for value in values if abs(value) > ziggurat.NORMAL_R]
    assert 0 < len(tail) < 15
    assert any(value < 0 for value in values)


@pytest.mark.parametrize("shape", [1.0, 1.5, 2.0, 62.0])
def test_gammas_have_their_mean_and_variance(shape: float) -> None:
    """Both are the shape; 1 is the exponential distribution."""
    draws = Draws(2)
    values = [draws.gamma(shape) for _ in range(COUNT)]
    assert min(values) > 0
    assert abs(statistics.fmean(values) / shape - 1.0) < 0.03
    assert abs(statistics.pvariance(values) / shape - 1.0) < 0.06


def test_exponentials_reach_beyond_the_last_edge() -> None:
    """About one in 2,200 lies in the tail."""
    draws = Draws(4)
    values = [draws.exponential() for _ in range(COUNT)]
    beyond = sum(value > ziggurat.EXPONENTIAL_R for value in values)
    assert abs(beyond - COUNT * math.exp(-ziggurat.EXPONENTIAL_R)) < 10


def test_uniforms_keep_their_bounds() -> None:
    """The open uniform never is 0 or 1; the other never is 1."""
    draws = Draws(5)
    assert all(0.0 < draws.open_uniform() < 1.0 for _ in range(COUNT))
    assert all(0.0 <= draws.uniform() < 1.0 for _ in range(COUNT))

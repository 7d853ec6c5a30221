"""budget: what quality budgets make of a plan, before anything is written.

Spec: formats/profile.md, section "budget".

    level of a page and kv head    0 the codec of its rule, then the budget's ladder, then raw

A page that loses too much by itself is raised (max_relative_mse); then the pages of each head
are raised until its attention is within bounds (settle).
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.errors import ExpectationError
from kvq_cli.profile import Fallback
from kvq_cli.quality import EXACT
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.plan import Plan
from kvq_cli.steps.probe import SELF, Probe, probe_of
from kvq_cli.steps.settle import SLACK, Drifts, HeadSettler
from kvq_cli.steps.trial import Levels, Trial, by_layer
from kvq_cli.steps.verdict import (
    METRIC,
    RELATIVE,
    Bounds,
    Found,
    Worst,
    broken_line,
    nearest,
    quality_bytes,
    strictest,
)
from kvq_cli.steps.whole import moved, whole_capture
from kvq_cli.steps.work import Bench, Progress, in_order, silent, workers
from kvq_cli.words import Role


@record
class Settled:
    """What became of one layer."""

    levels: Levels
    plain: Found  # at level 0
    worst: Found
    raw: bool  # some page was put at the last level


def kept_to_budget(
    plan: Plan,
    queries: str | Path | None,
    threads: int,
    progress: Progress = silent,
    layers: Container[int] | None = None,
) -> Plan:
    """The plan with the pages raised that break a budget; without one, the plan itself.

    With `layers`, nothing is done about others.

    ExpectationError E806 where a page would have to stay raw and a profile fails closed.
    """
    budgets = [profile.budget for profile in plan.profiles.values() if profile.budget]
    bounds = strictest(budgets)
    if not bounds:
        return plan
    with ExitStack() as stack:
        probe, capture = None, plan.capture
        if any(name in METRIC for name in bounds):
            if plan.chain:
                capture = whole_capture(plan, threads, stack)
            holder = plan.capture.source
            probe = stack.enter_context(probe_of(capture, queries, holder))
            probe = probe or stack.enter_context(probe_of(capture, SELF))
        keeper = _Keeper(plan, capture, bounds, probe, layers)
        levels, plain, worst, raw = _all_settled(keeper, threads, progress)
    closed = any(budget.on_violation is Fallback.FAIL_CLOSED for budget in budgets)
    if raw and closed:
        raise ExpectationError("E806", f"{broken_line(plain, bounds)}; the profile fails closed")
    manifest = replace(
        plan.manifest,
        probe=probe.kind if probe else "none",
        queries_digest=probe.digest if probe else None,
    )
    quality = quality_bytes(bounds, worst)
    return replace(plan, manifest=manifest, levels=levels, quality=quality)


def _all_settled(
    keeper: _Keeper, threads: int, progress: Progress
) -> tuple[dict[tuple[Role, int, int], NDArray[np.int64]], Found, Found, bool]:
    """Levels of every layer; the worst before and after; whether pages are raw for it."""
    levels: dict[tuple[Role, int, int], NDArray[np.int64]] = {}
    plain: Found = {}
    worst: Found = {}
    raw, done, total = False, 0, sum(map(keeper.nbytes, keeper.pages))
    with workers(threads) as pool:
        settled = in_order(pool, keeper.settle, keeper.pages)
        for place, found in zip(keeper.pages, settled, strict=True):
            levels |= {(role, *place): each for role, each in found.levels.items()}
            plain, worst = nearest(plain, found.plain), nearest(worst, found.worst)
            raw |= found.raw
            done += keeper.nbytes(place)
            progress(done, total)
    return levels, plain, worst, raw


class _Keeper:
    """Settles one layer after the other; safe to call from many threads."""

    def __init__(
        self,
        plan: Plan,
        capture: Capture,
        bounds: Bounds,
        probe: Probe | None,
        layers: Container[int] | None,
    ) -> None:
        """`capture` is the plan's, or the whole cache that it ends."""
        self._plan, self._capture, self._bounds, self._probe = plan, capture, bounds, probe
        self._layers = {layer.layer: layer for layer in capture.layers}
        self._bench = Bench(tables=plan.tables)
        planned = plan.pages()
        if capture is not plan.capture:
            planned = (moved(page, capture) for page in planned)
        pages = by_layer(planned)
        self.pages = {
            place: each for place, each in pages.items() if layers is None or place[1] in layers
        }

    def nbytes(self, place: tuple[int, int]) -> int:
        return sum(page.nbytes for pages in self.pages[place].values() for page in pages)

    def settle(self, place: tuple[int, int]) -> Settled:
        batch, layer = place[0], self._layers[place[1]]
        pages, rope = self.pages[place], None
        if self._probe is not None and (turned := self._probe.rope(layer)) is not None:
            rope = turned, self._probe.first(layer)
        ladders = {role: self._plan.profiles[role].ladder(role) for role in pages}
        trial = Trial(self._capture, (batch, layer), pages, ladders, self._bench.scratch, rope)
        levels = {
            role: np.zeros((len(each), layer.heads), np.int64) for role, each in pages.items()
        }
        plain, worst = self._pages_within(trial, layer.layer, levels)
        if self._probe is not None and Role.KEY in pages:
            queries, sees = self._probe.look(batch, layer)
            heads = HeadSettler(trial, queries, sees, self._bounds)
            if len(sees) and heads.wanted:
                drifts = heads.settle(levels)
                plain, worst = (
                    found | _worst_heads(drift, layer.layer, self._bounds)
                    for found, drift in zip((plain, worst), drifts, strict=True)
                )
        raw = any(
            bool(((each > len(ladders[role])) & trial.lossy(role)).any())
            for role, each in levels.items()
        )
        return Settled(levels, plain, worst, raw)

    def _pages_within(self, trial: Trial, layer: int, levels: Levels) -> tuple[Found, Found]:
        """Raises the levels of pages that lose too much by themselves."""
        plain: Found = {}
        worst: Found = {}
        if RELATIVE not in self._bounds:
            return plain, worst
        for role, pages in trial.pages.items():
            for at, page in enumerate(pages):
                heads = np.array(page.heads)
                settled = np.zeros(len(heads), np.int64)
                first = kept = _relative_mse(*trial.sides(role, at, 0))
                for level in range(1, trial.top + 1):
                    over = kept * SLACK > self._bounds[RELATIVE]
                    if not over.any():
                        break
                    settled[over] = level
                    kept = np.where(over, _relative_mse(*trial.sides(role, at, level)), kept)
                levels[role][at, heads] = settled
                plain = nearest(plain, _largest(first, layer, heads))
                worst = nearest(worst, _largest(kept, layer, heads))
        return plain, worst


def _worst_heads(drift: Drifts, layer: int, bounds: Bounds) -> Found:
    """The query head nearest to each bound."""
    found = {}
    for name in bounds:
        each = drift.get(METRIC.get(name, ""))
        if each is not None:
            flat = each.reshape(-1)
            at = int(flat.argmin() if name.startswith("min_") else flat.argmax())
            found[name] = Worst(float(flat[at]), layer, at)
    return found


def _relative_mse(before: Floats, after: Floats) -> Floats:
    """Of each head of a page."""
    gaps = (before - after).reshape(len(before), -1)
    flat = before.reshape(len(before), -1)
    energy, error = EXACT.total(flat * flat), EXACT.total(gaps * gaps)
    found: Floats = np.where(error > 0, np.inf, 0.0)
    np.divide(error, energy, out=found, where=energy > 0)
    return found


def _largest(losses: Floats, layer: int, heads: NDArray[np.int64]) -> Found:
    at = int(losses.argmax())
    return {RELATIVE: Worst(float(losses[at]), layer, int(heads[at]))}

"""budget: what quality budgets make of a plan, before anything is written.

Spec: formats/profile.md, section "budget".

    level of a page and kv head    0 the codec of its rule, then the budget's ladder, then raw

A page that loses too much by itself is raised (max_relative_mse); then the pages of each head
are raised until its attention is within bounds (settle). Layers that share pages are settled
each by itself; a head of a page gets the largest of its levels, until all layers are content.
So do all heads of a page that cannot be split.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.errors import ExpectationError
from kvq_cli.profile import Fallback
from kvq_cli.quality import EXACT
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.encode import Encoder
from kvq_cli.steps.plan import PagePlan, Plan
from kvq_cli.steps.probe import SELF, Probe, QuerySource, probe_of
from kvq_cli.steps.settle import SLACK, Drifts, HeadSettler
from kvq_cli.steps.trial import Levels, Trial, by_layer
from kvq_cli.steps.unsplit import Unsplit
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

LOOKED_AT: Final = 8  # layers, or groups of them

Place: TypeAlias = tuple[int, int]  # batch entry and layer
Group: TypeAlias = tuple[Role, int, int]  # role, batch entry and first layer


@record
class Settled:
    """What became of one layer, or of layers that share pages."""

    levels: Mapping[Group, NDArray[np.int64]]
    plain: Found  # at level 0
    worst: Found
    raw: bool  # some page was put at the last level


def kept_to_budget(
    plan: Plan,
    queries: QuerySource,
    threads: int,
    progress: Progress = silent,
) -> Plan:
    """The plan with the pages raised that break a budget; without one, the plan itself.

    ExpectationError E806 where a page would have to stay raw and a profile fails closed.
    """
    budgets = [profile.budget for profile in plan.profiles.values() if profile.budget]
    bounds = strictest(budgets)
    if not bounds:
        return plan
    with ExitStack() as stack:
        keeper = _keeper(plan, bounds, queries, threads, stack)
        levels, plain, worst, raw = _all_settled(keeper, threads, progress)
    closed = any(budget.on_violation is Fallback.FAIL_CLOSED for budget in budgets)
    if raw and closed:
        raise ExpectationError("E806", f"{broken_line(plain, bounds)}; the profile fails closed")
    quality = quality_bytes(bounds, worst)
    return replace(keeper.asked(), levels=levels, quality=quality)


def worst_unraised(plan: Plan, name: str, queries: QuerySource, threads: int) -> tuple[float, Plan]:
    """What a bound would be held against if no page were raised; the plan that says by whom.

    Where there are many layers, some are looked at.
    """
    with ExitStack() as stack:
        # A bound that everything keeps.
        keeper = _keeper(plan, {name: sys.float_info.max}, queries, threads, stack)
        pool = stack.enter_context(workers(threads))
        worst: Found = {}
        chosen = keeper.sharing[:: -(-len(keeper.sharing) // LOOKED_AT)]
        for settled in in_order(pool, keeper.settle, chosen):
            worst = nearest(worst, settled.plain)
        return (worst[name].value if name in worst else 0.0), keeper.asked()


def _keeper(
    plan: Plan, bounds: Bounds, queries: QuerySource, threads: int, stack: ExitStack
) -> _Keeper:
    probe, capture = None, plan.capture
    if any(name in METRIC for name in bounds):
        if plan.chain:
            capture = whole_capture(plan, threads, stack)
        holder = plan.capture.source
        probe = stack.enter_context(probe_of(capture, queries, holder))
        probe = probe or stack.enter_context(probe_of(capture, SELF))
    return _Keeper(plan, capture, bounds, probe)


def _all_settled(
    keeper: _Keeper, threads: int, progress: Progress
) -> tuple[dict[tuple[Role, int, int], NDArray[np.int64]], Found, Found, bool]:
    """Levels of every layer; the worst before and after; whether pages are raw for it."""
    levels: dict[tuple[Role, int, int], NDArray[np.int64]] = {}
    plain: Found = {}
    worst: Found = {}
    raw, done, total = False, 0, sum(map(keeper.nbytes, keeper.sharing))
    with workers(threads) as pool:
        settled = in_order(pool, keeper.settle, keeper.sharing)
        for places, found in zip(keeper.sharing, settled, strict=True):
            levels |= found.levels
            plain, worst = nearest(plain, found.plain), nearest(worst, found.worst)
            raw |= found.raw
            done += keeper.nbytes(places)
            progress(done, total)
    return levels, plain, worst, raw


class _Keeper:
    """Settles layers, those that share pages together; safe to call from many threads."""

    def __init__(self, plan: Plan, capture: Capture, bounds: Bounds, probe: Probe | None) -> None:
        """`capture` is the plan's, or the whole cache that it ends."""
        self._plan, self._capture, self._bounds, self._probe = plan, capture, bounds, probe
        self._layers = {layer.layer: layer for layer in capture.layers}
        self._bench, self._encoder = Bench(tables=plan.tables), Encoder(plan)
        self._first = {
            (role, layer): first
            for role, groups in plan.groups.items()
            for first, count in groups.items()
            for layer in range(first, first + count)
        }
        planned = (single for page in plan.pages() for single in page.apart())
        if capture is not plan.capture:
            planned = (moved(page, capture) for page in planned)
        self.pages = by_layer(planned)
        self.sharing = self._sharing()

    def asked(self) -> Plan:
        """The plan, which says by whose queries it was judged."""
        probe, manifest = self._probe, self._plan.manifest
        kind, digest = (probe.kind, probe.digest) if probe else ("none", None)
        return replace(self._plan, manifest=replace(manifest, probe=kind, queries_digest=digest))

    def nbytes(self, places: Sequence[Place]) -> int:
        rows = (pages for place in places for pages in self.pages[place].values())
        return sum(page.nbytes for pages in rows for page in pages)

    def settle(self, places: Sequence[Place]) -> Settled:
        """Layers that share pages: a head of a page gets one level in all of them."""
        unsplit = Unsplit(self._encoder)
        levels = {
            group: np.zeros((len(pages), self._layers[place[1]].heads), np.int64)
            for place in places
            for group, pages in self._groups(place).items()
        }
        pages = {group: each for place in places for group, each in self._groups(place).items()}
        seen = {place: self._alone(place, levels, unsplit) for place in places}
        plain: Found = {}
        for each in seen.values():
            plain = nearest(plain, each.plain)
        while behind := _raised(levels, seen, pages):
            seen |= {place: self._alone(place, levels, unsplit) for place in behind}
        worst: Found = {}
        for each in seen.values():
            worst = nearest(worst, each.worst)
        return Settled(levels, plain, worst, any(each.raw for each in seen.values()))

    def _sharing(self) -> list[list[Place]]:
        """The layers of each batch entry; those that share pages of some role stand together."""
        begin: dict[int, int] = {}  # of what each layer shares pages with
        for layer in sorted(self._layers):
            firsts = [self._first[role, layer] for role in Role if (role, layer) in self._first]
            begin[layer] = min([layer, *(begin[first] for first in firsts if first < layer)])
        found: dict[Place, list[Place]] = {}
        for batch, layer in self.pages:
            found.setdefault((batch, begin[layer]), []).append((batch, layer))
        return list(found.values())

    def _groups(self, place: Place) -> dict[Group, list[PagePlan]]:
        """The pages of a layer, by the group that has them."""
        batch, layer = place
        pages = self.pages[place]
        return {(role, batch, self._first[role, layer]): each for role, each in pages.items()}

    def _alone(
        self, place: Place, given: Mapping[Group, NDArray[np.int64]], unsplit: Unsplit
    ) -> Settled:
        """One layer, from the levels of its groups on."""
        batch, layer = place[0], self._layers[place[1]]
        pages, rope = self.pages[place], None
        if self._probe is not None and (turned := self._probe.rope(layer)) is not None:
            rope = turned, self._probe.first(layer)
        ladders = {role: self._plan.profiles[role].ladder(role) for role in pages}
        here = (batch, layer)
        trial = Trial(self._capture, here, pages, ladders, self._bench.scratch, rope, unsplit)
        groups = self._groups(place)
        levels = {group[0]: given[group].copy() for group in groups}
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
        return Settled({group: levels[group[0]] for group in groups}, plain, worst, raw)

    def _pages_within(self, trial: Trial, layer: int, levels: Levels) -> tuple[Found, Found]:
        """Raises the levels of pages that lose too much by themselves."""
        plain: Found = {}
        worst: Found = {}
        if RELATIVE not in self._bounds:
            return plain, worst
        for role, pages in trial.pages.items():
            for at, page in enumerate(pages):
                heads = np.array(page.heads)
                settled = levels[role][at, heads]
                first = kept = _losses(trial, (role, at), settled)
                for level in range(1, trial.top + 1):
                    over = kept * SLACK > self._bounds[RELATIVE]
                    if not over.any():
                        break
                    over &= settled < level
                    settled[over] = level
                    kept = np.where(over, _relative_mse(*trial.sides(role, at, level)), kept)
                levels[role][at, heads] = settled
                plain = nearest(plain, _largest(first, layer, heads))
                worst = nearest(worst, _largest(kept, layer, heads))
        return plain, worst


def _raised(
    levels: dict[Group, NDArray[np.int64]],
    seen: Mapping[Place, Settled],
    pages: Mapping[Group, Sequence[PagePlan]],
) -> list[Place]:
    """Raises levels to the largest of any layer, in place; the layers that had less.

    Heads that come back together only have the largest of any of them.
    """
    for each in seen.values():
        for group, found in each.levels.items():
            np.maximum(levels[group], found, out=levels[group])
    for group, planned in pages.items():
        for at, page in enumerate(planned):
            if page.together():
                heads = list(page.heads)
                levels[group][at, heads] = levels[group][at, heads].max()
    return [
        place
        for place, each in seen.items()
        if any((levels[group] > found).any() for group, found in each.levels.items())
    ]


def _losses(trial: Trial, page: tuple[Role, int], levels: NDArray[np.int64]) -> Floats:
    """The relative MSE of each head of a page at its level."""
    found = np.zeros(len(levels))
    for level in np.unique(levels).tolist():
        mine = levels == level
        found[mine] = _relative_mse(*trial.sides(*page, level))[mine]
    return found


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

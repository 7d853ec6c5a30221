"""settle: the levels of pages that keep one layer's attention within a budget.

Spec: formats/profile.md, section "budget".

    ranking       the lossy pages of a kv head, those first that disturb attention most
    candidates    the first m pages of the ranking one level up, m = 0, 1, 2, …

Each kv head is settled by itself, since what its queries see depends on no other. The shortest
candidate is taken for which it and every longer one that was tried hold; bisection tries one
for each bit of the number of pages. Raw pages lose nothing, so there always is one.

All is measured over integers (EXACT), so that the same pages are raised on every machine, and
with SLACK to spare, so that whoever measures in floats finds the budget kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.quality import EXACT, Attention, Kept
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.quality.attention import VALUE_METRICS
from kvq_cli.steps.trial import Levels, Trial
from kvq_cli.steps.verdict import METRIC, Bounds, holds
from kvq_cli.words import Role

SLACK: Final = 1 + 2.0**-8
TV_SLACK: Final = 2.0**-16
SIDE: Final = 1 << 21  # bytes of the logits of heads that are settled together
ROOM: Final = 1 << 27  # bytes of the logits of a search: before, and after at each level

Drifts: TypeAlias = dict[str, Floats]  # of the chosen kv heads and their query heads
Heads: TypeAlias = NDArray[np.int64]
Ranking: TypeAlias = list[tuple[Role, int]]  # a role, and a place among its pages


class HeadSettler:
    """The kv heads of one layer, each settled by itself."""

    def __init__(
        self, trial: Trial, queries: Floats, sees: NDArray[np.int64], bounds: Bounds
    ) -> None:
        self._trial, self._queries, self._sees = trial, queries, sees
        values = Role.VALUE in trial.pages
        self._bounds = {
            name: bound
            for name, bound in bounds.items()
            if name in METRIC and (values or METRIC[name] not in VALUE_METRICS)
        }
        self.wanted = [METRIC[name] for name in self._bounds]
        self._cuts = trial.cuts()

    def settle(self, levels: Levels) -> tuple[Drifts, Drifts]:
        """Raises levels, in place, until every bound holds; the drift before and after."""
        shape = self._queries.shape[:2]
        plain, drift = ({name: np.empty(shape) for name in self.wanted} for _ in "pd")
        for heads in self._groups():
            found = self._drift(levels, heads)
            for each in (plain, drift):
                _put(each, heads, found)
            self._raise(levels, heads[~self._within(found)], drift)
        return plain, drift

    def _groups(self) -> Iterator[Heads]:
        """So many kv heads at a time that their logits can be kept: none needs another."""
        heads, *queries, _ = self._queries.shape
        size = max(1, SIDE // (8 * math.prod(queries) * self._trial.tokens))
        for first in range(0, heads, size):
            self._kept = Kept(ROOM)
            self._trial.forget()
            yield np.arange(first, min(first + size, heads))

    def _raise(self, levels: Levels, failing: Heads, drift: Drifts) -> None:
        """Heads that break a bound, level by level, until none does."""
        for level in range(1, self._trial.top + 1):
            if not len(failing):
                break
            raised = self._raised(levels, failing, level)
            found = self._drift(raised, failing)
            held = self._within(found) | (level == self._trial.top)
            _put(drift, failing, found)
            if held.any():
                self._bisect(levels, raised, failing[held], drift)
            for role, each in levels.items():
                each[:, failing[~held]] = raised[role][:, failing[~held]]
            failing = failing[~held]

    def _bisect(self, low: Levels, high: Levels, heads: Heads, drift: Drifts) -> None:
        """The shortest prefix of each head's ranking that takes `high` and holds."""
        rankings = self._rankings(low, high, heads)
        shortest = {int(head): len(rankings[head]) for head in heads}
        longest = {int(head): 0 for head in heads}  # that does not hold
        while active := [head for head in shortest if shortest[head] - longest[head] > 1]:
            middles = {head: (shortest[head] + longest[head]) // 2 for head in active}
            chosen = np.array(active)
            found = self._drift(_mixed(low, high, rankings, middles), chosen)
            held = self._within(found)
            for head, holding in zip(active, held.tolist(), strict=True):
                (shortest if holding else longest)[head] = middles[head]
            _put(drift, chosen[held], {name: each[held] for name, each in found.items()})
        taken = _mixed(low, high, rankings, shortest)
        for role, each in low.items():
            each[:, heads] = taken[role][:, heads]

    def _raised(self, levels: Levels, heads: Heads, level: int) -> Levels:
        """All lossy pages of these heads at least at this level, in roles that count."""
        raised = {role: each.copy() for role, each in levels.items()}
        for role in self._roles():
            chosen = np.zeros_like(raised[role], bool)
            chosen[:, heads] = self._trial.lossy(role)[:, heads]
            np.maximum(raised[role], level, out=raised[role], where=chosen)
        return raised

    def _rankings(self, low: Levels, high: Levels, heads: Heads) -> dict[int, Ranking]:
        """For each head the pages that `high` raises, the most disturbing first."""
        attention = self._attention(heads)
        shares = attention.shares(self._cuts, self._trial.reader(low, heads), self._kept)
        weights = shares["keys"]
        if "max_logit_mse" in self._bounds:
            weights = weights + shares["logits"] / max(self._bounds["max_logit_mse"], 1e-300)
        by_role = {Role.KEY: weights, Role.VALUE: shares["values"]}
        found: dict[int, list[tuple[float, Role, int]]] = {int(head): [] for head in heads}
        for role in self._roles():
            for at, page in enumerate(self._trial.pages[role]):
                key = page.record.key
                inside = [key.start <= start < key.stop for start, _ in self._cuts]
                for place, head in enumerate(heads.tolist()):
                    if high[role][at, head] != low[role][at, head]:
                        share = EXACT.total(by_role[role][inside, place])
                        found[head].append((-float(share), role, at))
        return {head: [(role, at) for _, role, at in sorted(each)] for head, each in found.items()}

    def _roles(self) -> list[Role]:
        """The roles whose pages count for some bound."""
        values = not set(VALUE_METRICS).isdisjoint(self.wanted)
        return [role for role in self._trial.pages if role is Role.KEY or values]

    def _attention(self, heads: Heads) -> Attention:
        return Attention(self._queries[heads], self._sees, self.wanted, arithmetic=EXACT)

    def _drift(self, levels: Levels, heads: Heads) -> Drifts:
        reader = self._trial.reader(levels, heads)
        return self._attention(heads).drift(self._trial.blocks(), reader, self._kept)

    def _within(self, drift: Drifts) -> NDArray[np.bool_]:
        """Which kv heads keep every bound, with room for what EXACT rounds."""
        held = np.ones(len(drift[self.wanted[0]]), bool)
        for name, bound in self._bounds.items():
            each = drift[METRIC[name]]
            if name.startswith("min_"):
                each = 1 - (1 - each) * SLACK
            else:
                spare = TV_SLACK if name == "max_attention_tv" else 0.0
                each = np.where(each > 0, each * SLACK + spare, each)
            held &= np.asarray(holds(name, each, bound)).all(axis=1)
        return held


def _mixed(
    low: Levels,
    high: Levels,
    rankings: Mapping[int, Ranking],
    counts: Mapping[int, int],
) -> Levels:
    """Levels of `low`, but those of `high` for so many pages of each head's ranking."""
    found = {role: each.copy() for role, each in low.items()}
    for head, count in counts.items():
        for role, at in rankings[head][:count]:
            found[role][at, head] = high[role][at, head]
    return found


def _put(drift: Drifts, heads: Heads, found: Drifts) -> None:
    for name, each in found.items():
        drift[name][heads] = each

"""attention: what becomes of the attention that queries pay to keys and values.

Spec: formats/report.md, section "Attention".

    z = q·k · scale     p = softmax(z)     o = Σ p v       over the tokens that a query sees

    logit_mse                mean (z - z')²             topk_disagreement       1 - |T ∩ T'| / k
    attention_tv             ½ Σ|p - p'|                value_aggregation_mse   mean (o - o')²
    attention_kl             Σ p ln(p / p')             attention_cosine        o·o' / (|o||o'|)

One layer at a time, its tokens in blocks, twice: once for the peak and the sum of each softmax,
once more for all that needs them. So memory does not grow with the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.quality.arithmetic import FLOATS, Arithmetic, Floats, exp
from kvq_cli.record import record
from kvq_cli.words import Role

VALUE_METRICS: Final = ("value_aggregation_mse", "attention_cosine")
METRICS: Final = (
    "logit_mse", "attention_tv", "attention_kl", "topk_disagreement", *VALUE_METRICS,
)  # fmt: skip
TOP: Final = 8
FLOOR: Final = 1e-12  # of a probability under the logarithm
TILE: Final = 1 << 18  # logits at a time

Drift: TypeAlias = dict[str, Floats]  # of each query head, (H, G); the mean over its queries
# Rows of a role and a token range before and after, (H, T, D) each.
Read: TypeAlias = Callable[[Role, int, int], tuple[Floats, Floats]]


@record(eq=False)
class Attention:
    """The queries of one layer, and what is asked about them."""

    queries: Floats  # (H, G, n, D): kv head, query head of it, query; times the scale
    sees: NDArray[np.int64]  # (n,): a query sees so many tokens, from the layer's first
    wanted: Collection[str] = METRICS
    top: int = TOP
    arithmetic: Arithmetic = FLOATS

    def drift(self, cuts: Sequence[tuple[int, int]], read: Read) -> Drift:
        """The wanted metrics; `cuts` are token ranges that follow each other."""
        sums = _Sums(self)
        for start, stop, keys in self._blocks(cuts, read):
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                sums.first(part, before, after)
        sums.between()
        for start, stop, keys in self._blocks(cuts, read):
            values = read(Role.VALUE, start, stop) if sums.outputs else None
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                sums.second(part, before, after, values)
        return sums.drift()

    @property
    def flat(self) -> Floats:
        """The queries of a kv head one behind the other, (H, M, D)."""
        heads, _, _, channels = self.queries.shape
        return self.queries.reshape(heads, -1, channels)

    def _blocks(
        self, cuts: Sequence[tuple[int, int]], read: Read
    ) -> Iterator[tuple[int, int, tuple[Floats, Floats]]]:
        """Token ranges that somebody sees, and their keys."""
        last = int(self.sees.max(initial=0))
        for start, stop in cuts:
            if start < last:
                yield start, stop, read(Role.KEY, start, stop)

    def _parts(self, tokens: int) -> Iterator[slice]:
        """Queries, so many that their logits make a tile."""
        heads, count, _ = self.flat.shape
        step = max(1, TILE // max(1, heads * tokens))
        return (slice(at, min(at + step, count)) for at in range(0, count, step))

    def _logits(self, part: slice, keys: Floats, start: int) -> Floats:
        logits = self.arithmetic.product(self.flat[:, part], keys)
        seen = np.tile(self.sees, self.queries.shape[1])[part] - start
        logits[:, np.arange(keys.shape[1]) >= seen[:, None]] = -np.inf
        return logits


class _Softmax:
    """Peak, sum and largest logits of each query; as float32 these tell equal ones from others."""

    def __init__(self, shape: tuple[int, int], top: int) -> None:
        self.peak = np.full(shape, -np.inf)
        self.mass = np.zeros(shape)
        self.best = np.full((*shape, top), -np.inf, np.float32)
        self.spare = np.zeros(shape, np.int64)  # of the k largest, those that equal the least

    def see(self, part: slice, logits: Floats, arithmetic: Arithmetic) -> None:
        peak = np.maximum(self.peak[:, part], logits.max(axis=-1))
        grown = np.where(np.isneginf(peak), 0.0, peak)  # nothing seen yet: any will do
        kept = self.mass[:, part] * exp(self.peak[:, part] - grown)
        self.mass[:, part] = kept + arithmetic.total(exp(logits - grown[..., None]))
        self.peak[:, part] = peak
        if top := self.best.shape[-1]:
            both = np.concatenate([self.best[:, part], logits.astype(np.float32)], axis=-1)
            self.best[:, part] = np.partition(both, -top, axis=-1)[..., -top:]

    def seen(self) -> None:
        """All was seen."""
        self.least = self.best.min(axis=-1, initial=np.inf)
        self.spare = (self.best == self.least[..., None]).sum(axis=-1)

    def weights(self, part: slice, logits: Floats) -> Floats:
        found: Floats = exp(logits - self.peak[:, part, None])
        found /= self.mass[:, part, None]
        return found

    def largest(self, part: slice, logits: Floats) -> NDArray[np.bool_]:
        """Which are among the k largest; of equal ones the first."""
        least, spare = self.least[:, part, None], self.spare[:, part]
        compared = logits.astype(np.float32)
        equal = (compared == least) & (compared > -np.inf)
        if (equal.sum(axis=-1) > spare).any():
            equal &= np.cumsum(equal, axis=-1) <= spare[..., None]
        self.spare[:, part] -= equal.sum(axis=-1)
        found: NDArray[np.bool_] = equal | (compared > least)
        return found


class _Sums:
    """What adds up over blocks, a number a query."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        wanted, shape = attention.wanted, attention.flat.shape[:2]
        self._wanted = frozenset(wanted)
        top = attention.top if "topk_disagreement" in self._wanted else 0
        self._before, self._after = _Softmax(shape, top), _Softmax(shape, top)
        self._sums: Drift = {name: np.zeros(shape) for name in METRICS if name in self._wanted}
        self.outputs = not self._wanted.isdisjoint(VALUE_METRICS)
        self._total = attention.arithmetic.total

    def first(self, part: slice, before: Floats, after: Floats) -> None:
        arithmetic = self._attention.arithmetic
        self._before.see(part, before, arithmetic)
        self._after.see(part, after, arithmetic)
        if "logit_mse" in self._sums:
            hidden = np.isneginf(before)
            gaps = np.where(hidden, 0.0, before) - np.where(hidden, 0.0, after)
            self._sums["logit_mse"][:, part] += self._total(gaps * gaps)

    def between(self) -> None:
        self._before.seen()
        self._after.seen()

    def second(
        self, part: slice, before: Floats, after: Floats, values: tuple[Floats, Floats] | None
    ) -> None:
        if "topk_disagreement" in self._sums:
            both = self._before.largest(part, before) & self._after.largest(part, after)
            self._sums["topk_disagreement"][:, part] += both.sum(axis=-1)
        weights = self._before.weights(part, before)
        others = self._after.weights(part, after)
        if "attention_tv" in self._sums:
            self._sums["attention_tv"][:, part] += self._total(np.abs(weights - others))
        if "attention_kl" in self._sums:
            logs = np.log(np.maximum(weights, FLOOR)) - np.log(np.maximum(others, FLOOR))
            self._sums["attention_kl"][:, part] += self._total(weights * logs)
        if values is not None:
            self._add_outputs(part, (weights, others), values)

    def _add_outputs(
        self, part: slice, weights: tuple[Floats, Floats], values: tuple[Floats, Floats]
    ) -> None:
        if not hasattr(self, "_outputs"):
            shape = (*self._attention.flat.shape[:2], values[0].shape[-1])
            self._outputs = np.zeros(shape), np.zeros(shape)
        product = self._attention.arithmetic.product
        for output, each, rows in zip(self._outputs, weights, values, strict=True):
            output[:, part] += product(each, rows.swapaxes(-1, -2))

    def drift(self) -> Drift:
        """Means over the queries of each query head."""
        sees = np.tile(self._attention.sees, self._attention.queries.shape[1])
        sums = self._sums
        if "logit_mse" in sums:
            sums["logit_mse"] /= sees
        if "attention_tv" in sums:
            sums["attention_tv"] /= 2
        if "topk_disagreement" in sums:
            sums["topk_disagreement"] = 1 - sums["topk_disagreement"] / np.minimum(
                sees, self._attention.top
            )
        if self.outputs:
            sums |= self._of_outputs()
        shape = self._attention.queries.shape[:3]
        return {
            name: self._total(sums[name].reshape(shape)) / shape[2]
            for name in METRICS
            if name in self._wanted
        }

    def _of_outputs(self) -> Drift:
        one, other = self._outputs
        gaps = one - other
        lengths: Floats = np.sqrt(self._total(one * one)) * np.sqrt(self._total(other * other))
        cosines: Floats = np.equal(np.abs(one).max(axis=-1) + np.abs(other).max(axis=-1), 0) * 1.0
        np.divide(self._total(one * other), lengths, out=cosines, where=lengths > 0)
        errors = self._total(gaps * gaps) / one.shape[-1]
        return dict(zip(VALUE_METRICS, (errors, cosines), strict=True))

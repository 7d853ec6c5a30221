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

from kvq_cli.quality.arithmetic import FLOATS, Arithmetic, Floats
from kvq_cli.record import record
from kvq_cli.words import Role

VALUE_METRICS: Final = ("value_aggregation_mse", "attention_cosine")
METRICS: Final = (
    "logit_mse", "attention_tv", "attention_kl", "topk_disagreement", *VALUE_METRICS,
)  # fmt: skip
SHARES: Final = ("keys", "logits", "values")
TOP: Final = 8
FLOOR: Final = 1e-12  # of a probability under the logarithm
TILE: Final = 1 << 18  # logits at a time

Weights: TypeAlias = tuple[Floats, Floats]  # before and after
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
        if sum(start < self._last for start, _ in cuts) == 1:
            self._one_block(cuts, read, sums)
            return sums.drift()
        for start, stop, keys in self._blocks(cuts, read):
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                sums.first(part, before, after)
        for start, stop, keys in self._blocks(cuts, read):
            values = read(Role.VALUE, start, stop) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                sums.second(part, before, after, sums.weights(part, before, after), values)
        return sums.drift()

    def _one_block(self, cuts: Sequence[tuple[int, int]], read: Read, sums: _Sums) -> None:
        """All at once: logits and their exponentials are there when they are asked again."""
        for start, stop, keys in self._blocks(cuts, read):
            values = read(Role.VALUE, start, stop) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                weights = sums.first(part, before, after)
                sums.second(part, before, after, weights, values)

    def shares(self, cuts: Sequence[tuple[int, int]], read: Read) -> dict[str, Floats]:
        """How much each block disturbs, to first order: (blocks, H) each, the mean over queries.

        keys      Σ p |z - z'|: by so much weights change
        logits    Σ (z - z')² / n
        values    Σ p |v - v'| / Σ p |v|, if values count
        """
        queries = self.flat.shape[1]
        softmax = _Softmax(self.flat.shape[:2], 0, self.arithmetic)
        total = self.arithmetic.total
        for start, stop, keys in self._blocks(cuts, read):
            for part in self._parts(stop - start):
                softmax.see(part, self._logits(part, keys[0], start))
        found = {name: np.zeros((len(cuts), len(self.queries))) for name in SHARES}
        whole = np.zeros(len(self.queries))
        for at, (start, stop, keys) in enumerate(self._blocks(cuts, read)):
            lengths = self._lengths(read(Role.VALUE, start, stop)) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = (self._logits(part, each, start) for each in keys)
                gaps = _gaps(before, after)
                weights = softmax.weights(part, before)
                found["keys"][at] += total(total(weights * np.abs(gaps))) / queries
                seen = np.tile(self.sees, self.queries.shape[1])[part]
                found["logits"][at] += total(total(gaps * gaps) / seen) / queries
                if lengths is not None:
                    original, error = (total(total(weights * each)) for each in lengths)
                    found["values"][at] += error
                    whole += original
        np.divide(found["values"], whole, out=found["values"], where=whole > 0)
        return found

    @property
    def _outputs(self) -> bool:
        """Whether values count."""
        return not set(VALUE_METRICS).isdisjoint(self.wanted)

    def _lengths(self, values: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
        """Lengths of the values, and of what is lost of them, (H, 1, T)."""
        gaps = values[0] - values[1]
        total = self.arithmetic.total
        lengths = (np.sqrt(total(each * each))[:, None] for each in (values[0], gaps))
        original, lost = lengths
        return original, lost

    @property
    def flat(self) -> Floats:
        """The queries of a kv head one behind the other, (H, M, D)."""
        heads, _, _, channels = self.queries.shape
        return self.queries.reshape(heads, -1, channels)

    def _blocks(
        self, cuts: Sequence[tuple[int, int]], read: Read
    ) -> Iterator[tuple[int, int, tuple[Floats, Floats]]]:
        """Token ranges that somebody sees, and their keys."""
        for start, stop in cuts:
            if start < self._last:
                yield start, stop, read(Role.KEY, start, stop)

    @property
    def _last(self) -> int:
        """Behind the last token that somebody sees."""
        return int(self.sees.max(initial=0))

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


def _gaps(before: Floats, after: Floats) -> Floats:
    """Differences of logits; 0 where a query does not see."""
    hidden = np.isneginf(before)
    return np.where(hidden, 0.0, before) - np.where(hidden, 0.0, after)


def _compared(logits: Floats) -> NDArray[np.float32]:
    """Logits as they are ranked; beyond float32 they are all alike."""
    with np.errstate(over="ignore"):
        return logits.astype(np.float32)


class _Softmax:
    """Peak, sum and largest logits of each query; as float32 these tell equal ones from others."""

    def __init__(self, shape: tuple[int, int], top: int, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self.peak = np.full(shape, -np.inf)
        self.mass = np.zeros(shape)
        self.best = np.full((*shape, top), -np.inf, np.float32)
        self.spare = np.full(shape, -1)  # of the k largest, those that equal the least

    def see(self, part: slice, logits: Floats) -> Floats:
        """The weights, if these logits are all there are."""
        peak = np.maximum(self.peak[:, part], logits.max(axis=-1))
        grown = np.where(np.isneginf(peak), 0.0, peak)  # nothing seen yet: any will do
        found = self._arithmetic.exp(logits - grown[..., None])
        kept = self.mass[:, part] * self._arithmetic.exp(self.peak[:, part] - grown)
        self.mass[:, part] = kept + self._arithmetic.total(found)
        self.peak[:, part] = peak
        if top := self.best.shape[-1]:
            both = np.concatenate([self.best[:, part], _compared(logits)], axis=-1)
            self.best[:, part] = np.partition(both, -top, axis=-1)[..., -top:]
        found /= self.mass[:, part, None]
        return found

    def weights(self, part: slice, logits: Floats) -> Floats:
        """The weights, after all logits were seen."""
        found = self._arithmetic.exp(logits - self.peak[:, part, None])
        found /= self.mass[:, part, None]
        return found

    def largest(self, part: slice, logits: Floats) -> NDArray[np.bool_]:
        """Which are among the k largest; of equal ones the first."""
        best, spare = self.best[:, part], self.spare[:, part]
        least = best.min(axis=-1, keepdims=True)
        spare[:] = np.where(spare < 0, (best == least).sum(axis=-1), spare)
        compared = _compared(logits)
        equal = (compared == least) & (logits > -np.inf)
        if (equal.sum(axis=-1) > spare).any():
            equal &= np.cumsum(equal, axis=-1) <= spare[..., None]
        spare -= equal.sum(axis=-1)
        found: NDArray[np.bool_] = equal | (compared > least)
        return found


class _Sums:
    """What adds up over blocks, a number a query."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        wanted, shape = attention.wanted, attention.flat.shape[:2]
        self._wanted = frozenset(wanted)
        top = attention.top if "topk_disagreement" in self._wanted else 0
        self._before, self._after = (_Softmax(shape, top, attention.arithmetic) for _ in "ba")
        self._sums: Drift = {name: np.zeros(shape) for name in METRICS if name in self._wanted}
        self._total = attention.arithmetic.total

    def first(self, part: slice, before: Floats, after: Floats) -> Weights:
        """See logits; the weights, if they are all there are."""
        if "logit_mse" in self._sums:
            gaps = _gaps(before, after)
            self._sums["logit_mse"][:, part] += self._total(gaps * gaps)
        return self._before.see(part, before), self._after.see(part, after)

    def weights(self, part: slice, before: Floats, after: Floats) -> Weights:
        """The weights, after all logits were seen."""
        return self._before.weights(part, before), self._after.weights(part, after)

    def second(
        self,
        part: slice,
        before: Floats,
        after: Floats,
        weights: Weights,
        values: tuple[Floats, Floats] | None,
    ) -> None:
        """See logits again, with their weights and what these are for."""
        if "topk_disagreement" in self._sums:
            both = self._before.largest(part, before) & self._after.largest(part, after)
            self._sums["topk_disagreement"][:, part] += both.sum(axis=-1)
        one, other = weights
        if "attention_tv" in self._sums:
            self._sums["attention_tv"][:, part] += self._total(np.abs(one - other))
        if "attention_kl" in self._sums:
            logs = np.log(np.maximum(one, FLOOR)) - np.log(np.maximum(other, FLOOR))
            self._sums["attention_kl"][:, part] += self._total(one * logs)
        if values is not None:
            self._add_outputs(part, weights, values)

    def _add_outputs(self, part: slice, weights: Weights, values: tuple[Floats, Floats]) -> None:
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
        if hasattr(self, "_outputs"):
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

"""attention: what becomes of the attention that queries pay to keys and values.

Spec: formats/report.md, section "Attention".

    z = q·k · scale     p = softmax(z)     o = Σ p v       over the tokens that a query sees

    logit_mse                mean (z - z')²             topk_disagreement       1 - |T ∩ T'| / k
    attention_tv             ½ Σ|p - p'|                value_aggregation_mse   mean (o - o')²
    attention_kl             Σ p ln(p / p')             attention_cosine        o·o' / (|o||o'|)

One layer at a time, its tokens in blocks, twice: once for the peak and the sum of each softmax,
once more for all that needs them. Logits are kept for the second time while there is room, so
memory does not grow with the tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.quality.arithmetic import FLOATS, Arithmetic, Floats
from kvq_cli.quality.sides import Kept, Read, Side, Sides
from kvq_cli.quality.softmax import Part, Softmax, gaps_of
from kvq_cli.record import record
from kvq_cli.words import Role

VALUE_METRICS: Final = ("value_aggregation_mse", "attention_cosine")
METRICS: Final = (
    "logit_mse", "attention_tv", "attention_kl", "topk_disagreement", *VALUE_METRICS,
)  # fmt: skip
SHARES: Final = ("keys", "logits", "values")
TOP: Final = 8
FLOOR: Final = 1e-12  # of a probability under the logarithm
TILE: Final = 1 << 16  # logits at a time: what they need stays in the processor's cache


Weights: TypeAlias = tuple[Floats, Floats]  # before and after
Drift: TypeAlias = dict[str, Floats]  # of each query head, (H, G); the mean over its queries


@record(eq=False)
class Attention:
    """The queries of one layer, and what is asked about them."""

    queries: Floats  # (H, G, n, D): kv head, query head of it, query; times the scale
    sees: NDArray[np.int64]  # (n,): a query sees so many tokens, from the layer's first
    wanted: Collection[str] = METRICS
    top: int = TOP
    arithmetic: Arithmetic = FLOATS

    def drift(self, cuts: Sequence[tuple[int, int]], read: Read, kept: Kept | None = None) -> Drift:
        """The wanted metrics; `cuts` are token ranges that follow each other.

        Who asks again, with rows of the same names, gives the same `kept`.
        """
        sums, kept = _Sums(self), kept or Kept()
        if sum(start < self._last for start, _ in cuts) == 1:
            self._one_block(cuts, read, sums, kept)
            return sums.drift()
        for start, stop, keys in self._blocks(cuts, read):
            for part in self._parts(stop - start):
                sums.first(part, *self._logits(part, keys, start, stop, kept))
        for start, stop, keys in self._blocks(cuts, read):
            values = read(Role.VALUE, start, stop) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = self._logits(part, keys, start, stop, kept)
                sums.second(part, before, after, sums.weights(part, before, after), values)
        return sums.drift()

    def _one_block(
        self, cuts: Sequence[tuple[int, int]], read: Read, sums: _Sums, kept: Kept
    ) -> None:
        """All at once: logits and their exponentials are there when they are asked again."""
        for start, stop, keys in self._blocks(cuts, read):
            values = read(Role.VALUE, start, stop) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = self._logits(part, keys, start, stop, kept)
                weights = sums.first(part, before, after)
                sums.second(part, before, after, weights, values)

    def shares(
        self, cuts: Sequence[tuple[int, int]], read: Read, kept: Kept | None = None
    ) -> dict[str, Floats]:
        """How much each block disturbs, to first order: (blocks, H) each, the mean over queries.

        keys      Σ p |z - z'|: by so much weights change
        logits    Σ (z - z')² / n
        values    Σ p |v - v'| / Σ p |v|, if values count
        """
        queries, kept = self.flat.shape[1], kept or Kept()
        softmax = Softmax(self.flat.shape[:2], 0, self.arithmetic)
        total = self.arithmetic.total
        for start, stop, keys in self._blocks(cuts, read):
            for part in self._parts(stop - start):
                softmax.see(part, self._tile(part, keys[0], start, stop, kept))
        found = {name: np.zeros((len(cuts), len(self.queries))) for name in SHARES}
        whole = np.zeros(len(self.queries))
        for at, (start, stop, keys) in enumerate(self._blocks(cuts, read)):
            lengths = self._lengths(read(Role.VALUE, start, stop)) if self._outputs else None
            for part in self._parts(stop - start):
                before, after = self._logits(part, keys, start, stop, kept)
                heads, gaps = part[0], gaps_of(before, after)
                weights = softmax.weights(part, before)
                found["keys"][at, heads] += total(total(weights * np.abs(gaps))) / queries
                squares = total(gaps * gaps) / self.seen(part[1])
                found["logits"][at, heads] += total(squares) / queries
                if lengths is not None:
                    original, error = (total(total(weights * each[heads])) for each in lengths)
                    found["values"][at, heads] += error
                    whole[heads] += original
        np.divide(found["values"], whole, out=found["values"], where=whole > 0)
        return found

    @property
    def _outputs(self) -> bool:
        """Whether values count."""
        return not set(VALUE_METRICS).isdisjoint(self.wanted)

    def _lengths(self, values: Sides) -> tuple[Floats, Floats]:
        """Lengths of the values, and of what is lost of them, (H, 1, T)."""
        rows = values[0].rows
        gaps = rows - values[1].rows
        total = self.arithmetic.total
        lengths = (np.sqrt(total(each * each))[:, None] for each in (rows, gaps))
        original, lost = lengths
        return original, lost

    @property
    def flat(self) -> Floats:
        """The queries of a kv head one behind the other, (H, M, D)."""
        heads, _, _, channels = self.queries.shape
        return self.queries.reshape(heads, -1, channels)

    def _blocks(
        self, cuts: Sequence[tuple[int, int]], read: Read
    ) -> Iterator[tuple[int, int, Sides]]:
        """Token ranges that somebody sees, and their keys."""
        for start, stop in cuts:
            if start < self._last:
                yield start, stop, read(Role.KEY, start, stop)

    @property
    def _last(self) -> int:
        """Behind the last token that somebody sees."""
        return int(self.sees.max(initial=0))

    def _parts(self, tokens: int) -> Iterator[Part]:
        """Heads and queries, so many that their logits make a tile."""
        heads, count, _ = self.flat.shape
        step = min(count, max(1, TILE // tokens))
        tall = max(1, TILE // (tokens * step))
        for head in range(0, heads, tall):
            for at in range(0, count, step):
                yield slice(head, head + tall), slice(at, min(at + step, count))

    def _logits(self, part: Part, keys: Sides, start: int, stop: int, kept: Kept) -> Weights:
        """Before and after; the same array where nothing is lost."""
        before, after = (self._tile(part, each, start, stop, kept) for each in keys)
        return before, after

    def _tile(self, part: Part, keys: Side, start: int, stop: int, kept: Kept) -> Floats:
        heads, queries = part

        def made() -> Floats:
            logits = self.arithmetic.product(self.flat[part], keys.rows[heads])
            seen = self.seen(queries) - start
            if (seen < stop - start).any():
                logits[:, np.arange(stop - start) >= seen[:, None]] = -np.inf
            return logits

        return kept.tile((keys.name, start, stop, heads.start, queries.start), made)

    def seen(self, queries: slice) -> NDArray[np.int64]:
        """How many tokens each of these queries of a kv head sees."""
        return np.tile(self.sees, self.queries.shape[1])[queries]


class _Sums:
    """What adds up over blocks, a number a query."""

    def __init__(self, attention: Attention) -> None:
        self._attention = attention
        wanted, shape = attention.wanted, attention.flat.shape[:2]
        self._wanted = frozenset(wanted)
        top = attention.top if "topk_disagreement" in self._wanted else 0
        self._before, self._after = (Softmax(shape, top, attention.arithmetic) for _ in "ba")
        self._sums: Drift = {name: np.zeros(shape) for name in METRICS if name in self._wanted}
        self._total = attention.arithmetic.total

    def first(self, part: Part, before: Floats, after: Floats) -> Weights:
        """See logits; the weights, if they are all there are."""
        if "logit_mse" in self._sums:
            gaps = gaps_of(before, after)
            self._sums["logit_mse"][part] += self._total(gaps * gaps)
        return self._before.see(part, before), self._after.see(part, after)

    def weights(self, part: Part, before: Floats, after: Floats) -> Weights:
        """The weights, after all logits were seen."""
        return self._before.weights(part, before), self._after.weights(part, after)

    def second(
        self,
        part: Part,
        before: Floats,
        after: Floats,
        weights: Weights,
        values: Sides | None,
    ) -> None:
        """See logits again, with their weights and what these are for."""
        if "topk_disagreement" in self._sums:
            both = self._before.largest(part, before) & self._after.largest(part, after)
            self._sums["topk_disagreement"][part] += both.sum(axis=-1)
        one, other = weights
        if "attention_tv" in self._sums:
            self._sums["attention_tv"][part] += self._total(np.abs(one - other))
        if "attention_kl" in self._sums:
            logs = np.log(np.maximum(one, FLOOR)) - np.log(np.maximum(other, FLOOR))
            self._sums["attention_kl"][part] += self._total(one * logs)
        if values is not None:
            self._add_outputs(part, weights, values)

    def _add_outputs(self, part: Part, weights: Weights, values: Sides) -> None:
        if not hasattr(self, "_outputs"):
            shape = (*self._attention.flat.shape[:2], values[0].rows.shape[-1])
            self._outputs = np.zeros(shape), np.zeros(shape)
        product = self._attention.arithmetic.product
        for output, each, side in zip(self._outputs, weights, values, strict=True):
            output[part] += product(each, side.rows[part[0]].swapaxes(-1, -2))

    def drift(self) -> Drift:
        """Means over the queries of each query head."""
        sees, sums = self._attention.seen(slice(None)), self._sums
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

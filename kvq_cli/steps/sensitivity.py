"""sensitivity: how much an error of keys or values moves what attention gives.

Spec: formats/transform.md, section "Weights".

With p the weights that a query q pays, o = Σ p v, to first order an error e of the key of token
t moves o by p_t (v_t - o) (q·e) and p_t by p_t (1 - p_t) (q·e), one of the value moves o by p_t e:

    keys    W = mean over queries of Σ_t (p_t² |v_t - o|² / |o|² + TV · p_t (1 - p_t)) q_t q_tᵀ
    values  w = mean over queries of Σ_t p_t² / |o|²

q_t is the query times the scale, turned back by the position of t, as the key is. Tokens are
read in blocks, twice: for peak, mass and o of each query, then for the rest. Of the products
q_t q_tᵀ only those of the KEPT tokens that count most are made, and stand for the others.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Source
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.queries import scale_of
from kvq_cli.codecs.basis import Turn
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.given import Given
from kvq_cli.steps.probe import LAST, read_wide
from kvq_cli.steps.turning import Angles
from kvq_cli.words import Role

MOST: Final = 48  # queries of a head and capture
KEPT: Final = 32  # tokens of a query
TV: Final = 0.05  # how much it counts that a weight itself moves, whatever comes of it
BLOCK: Final = 1 << 21  # logits at a time


@record(eq=False)
class Turning:
    """How a layer's keys are turned, and whether they are already."""

    turn: Turn
    factor: float
    done: bool


@record(eq=False)
class Sensitivity:
    """Sums over queries, and their number."""

    keys: Floats  # (H, D, D)
    values: Floats  # (H,)
    queries: int


@record(eq=False)
class Look:
    """The queries of one layer and batch entry, and the rows that they see."""

    given: Given
    layer: LayerShape
    batch: int
    turning: Turning | None
    skip: int

    def queries(self, *, own: bool) -> tuple[Floats, NDArray[np.int64]]:
        """(H, M, D), times the scale, and how many of the layer's tokens each sees."""
        rows, sees = self._own() if own else self._asked()
        chosen = np.unique(np.linspace(0, len(sees) - 1, min(MOST, len(sees))).astype(int))
        rows, sees = rows[:, chosen], sees[chosen]
        grouped = rows.reshape(self.layer.heads, -1, rows.shape[-1])
        return grouped * self._scale(own=own), np.tile(sees, len(rows) // self.layer.heads)

    def blocks(self, queries: int) -> Iterator[tuple[int, Floats, Floats]]:
        """First token, keys as queries see them, and values."""
        tokens, slabs, source = self.layer.tokens, self.given.capture.slabs, self._source
        size = max(1, BLOCK // (self.layer.heads * max(1, queries)))
        key, value = (slabs[role, self.batch, self.layer.layer] for role in Role)
        for start in range(0, tokens, size):
            stop = min(start + size, tokens)
            keys = read_wide(source, key, start, stop)
            if self.turning and not self.turning.done:
                keys = self._turned(keys, start) * self.turning.factor
            yield start, keys, read_wide(source, value, start, stop)

    def back(self, queries: Floats, places: NDArray[np.intp]) -> Floats:
        """Queries (…, D) turned back by the positions of tokens (…)."""
        if self.turning is None:
            return queries
        found = self._angles(places).back().turned(queries)
        return found if self.turning.done else found * self.turning.factor

    def _asked(self) -> tuple[Floats, NDArray[np.int64]]:
        queries = self.given.queries
        assert queries is not None
        slab = queries.slabs[self.batch, self.given.capture.layers.index(self.layer)]
        rows = read_wide(queries.source, slab, 0, slab.tokens)
        sees = np.full(slab.tokens, self.layer.tokens)
        if queries.positions is not None:
            positions = np.array(queries.positions)
            sees = np.minimum(positions + 1 - self.given.first(self.layer), self.layer.tokens)
            if self.turning and not queries.rotated:
                within = np.minimum(positions, self.turning.turn.positions - 1)
                turned = Angles.of(self.turning.turn, within).turned(rows)
                rows = turned * self.turning.factor
        return rows[:, sees > 0], sees[sees > 0]

    def _own(self) -> tuple[Floats, NDArray[np.int64]]:
        slab = self.given.capture.slabs[Role.KEY, self.batch, self.layer.layer]
        start = max(0, slab.tokens - LAST)
        rows = read_wide(self._source, slab, start, slab.tokens)
        if self.turning and not self.turning.done:
            rows = self._turned(rows, start) * self.turning.factor
        return rows, np.arange(start, slab.tokens) + 1

    def _turned(self, rows: Floats, start: int) -> Floats:
        return self._angles(np.arange(start, start + rows.shape[1])).turned(rows)

    def _angles(self, places: NDArray[np.intp]) -> Angles:
        assert self.turning is not None
        return Angles.of(self.turning.turn, places + self.given.first(self.layer))

    def _scale(self, *, own: bool) -> float:
        asked = self.given.queries
        told = asked.scale if asked and not own else None
        channels = self.layer.key[0] if self.layer.key else 1
        return told or scale_of(self.given.capture.identity) or 1 / math.sqrt(channels)

    @property
    def _source(self) -> Source:
        return self.given.capture.source


def measured(look: Look, *, own: bool) -> Sensitivity:
    """The sums of one layer, batch entry and capture."""
    queries, sees = look.queries(own=own)
    heads, count, channels = queries.shape
    if not count:
        return Sensitivity(np.zeros((heads, channels, channels)), np.zeros(heads), 0)
    peak, mass, outputs = _outputs(look, queries, sees)
    squares = np.square(outputs).sum(axis=-1)
    unit = np.divide(1.0, squares, out=np.zeros_like(squares), where=squares > 0)
    best, places = np.zeros((heads, count, 0)), np.zeros((heads, count, 0), np.intp)
    total, values = np.zeros((heads, count)), np.zeros((heads, count))
    for start, keys, rows in look.blocks(count):
        paid = np.exp(_logits(queries, keys, sees - start) - peak[..., None]) / mass[..., None]
        paid[..., : max(0, look.given.start(look.layer, look.skip) - start)] = 0.0
        squared = paid * paid
        values += squared.sum(axis=-1)
        # |v - o|² without making v - o
        apart = np.square(rows).sum(axis=-1)[:, None, :] + squares[..., None]
        apart -= 2 * (outputs @ rows.swapaxes(-1, -2))
        shares = squared * np.maximum(apart, 0.0) * unit[..., None] + TV * (paid - squared)
        total += shares.sum(axis=-1)
        tokens = np.broadcast_to(np.arange(start, start + shares.shape[-1]), shares.shape)
        best, places = _most(
            np.concatenate([best, shares], axis=-1), np.concatenate([places, tokens], axis=-1)
        )
    kept = best.sum(axis=-1)
    best *= np.divide(total, kept, out=np.zeros_like(kept), where=kept > 0)[..., None]
    matrices = np.stack(
        [_products(look, *each) for each in zip(queries, best, places, strict=True)]
    )
    return Sensitivity(matrices, (values * unit).sum(axis=-1), count)


def _outputs(look: Look, queries: Floats, sees: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """Peak and mass of each query's softmax, and what it gives."""
    heads, count, _ = queries.shape
    peak, mass = np.full((heads, count), -np.inf), np.zeros((heads, count))
    outputs: Floats = np.zeros((heads, count, 1))
    for start, keys, rows in look.blocks(count):
        logits = _logits(queries, keys, sees - start)
        higher = np.maximum(peak, logits.max(axis=-1))
        shrunk = np.exp(peak - higher)  # every query sees the first token
        paid = np.exp(logits - higher[..., None])
        mass = mass * shrunk + paid.sum(axis=-1)
        outputs = outputs * shrunk[..., None] + paid @ rows
        peak = higher
    return peak, mass, outputs / mass[..., None]


def _logits(queries: Floats, keys: Floats, sees: NDArray[np.int64]) -> Floats:
    logits: Floats = queries @ keys.swapaxes(-1, -2)
    logits[:, np.arange(keys.shape[1]) >= sees[:, None]] = -np.inf
    return logits


def _most(shares: Floats, places: NDArray[np.intp]) -> tuple[Floats, NDArray[np.intp]]:
    """The KEPT largest shares of each query, and their tokens."""
    if shares.shape[-1] <= KEPT:
        return shares, places
    chosen = np.argpartition(shares, -KEPT, axis=-1)[..., -KEPT:]
    return np.take_along_axis(shares, chosen, -1), np.take_along_axis(places, chosen, -1)


def _products(look: Look, queries: Floats, shares: Floats, places: NDArray[np.intp]) -> Floats:
    """Σ share · q_t q_tᵀ over the queries of one kv head and their tokens."""
    queried = np.repeat(queries, places.shape[1], axis=0)
    back = look.back(queried, places.reshape(-1)) * np.sqrt(shares.reshape(-1, 1))
    found: Floats = back.T @ back
    return found

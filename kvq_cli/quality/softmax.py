"""softmax: weights of logits that come block by block, and the largest of them.

Spec: formats/report.md, section "Attention".

    peak, mass      as blocks are seen: mass · e^(peak - new peak) + Σ e^(z - new peak)
    weights         e^(z - peak) / mass, once all blocks were seen
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.quality.arithmetic import Arithmetic, Floats

Part: TypeAlias = tuple[slice, slice]  # kv heads, and queries of each


def gaps_of(before: Floats, after: Floats) -> Floats:
    """Differences of logits; 0 where a query does not see."""
    hidden = np.isneginf(before)
    return np.where(hidden, 0.0, before) - np.where(hidden, 0.0, after)


def _compared(logits: Floats) -> NDArray[np.float32]:
    """Logits as they are ranked; beyond float32 they are all alike."""
    with np.errstate(over="ignore"):
        return logits.astype(np.float32)


class Softmax:
    """Peak, sum and largest logits of each query; as float32 these tell equal ones from others."""

    def __init__(self, shape: tuple[int, int], top: int, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self.peak = np.full(shape, -np.inf)
        self.mass = np.zeros(shape)
        self.best = np.full((*shape, top), -np.inf, np.float32)
        self.spare = np.full(shape, -1)  # of the k largest, those that equal the least

    def see(self, part: Part, logits: Floats) -> Floats:
        """The weights, if these logits are all there are."""
        peak = np.maximum(self.peak[part], logits.max(axis=-1))
        grown = np.where(np.isneginf(peak), 0.0, peak)  # nothing seen yet: any will do
        found = self._arithmetic.exp(logits - grown[..., None])
        kept = self.mass[part] * self._arithmetic.exp(self.peak[part] - grown)
        self.mass[part] = kept + self._arithmetic.total(found)
        self.peak[part] = peak
        if top := self.best.shape[-1]:
            both = np.concatenate([self.best[part], _compared(logits)], axis=-1)
            self.best[part] = np.partition(both, -top, axis=-1)[..., -top:]
        found /= self.mass[part][..., None]
        return found

    def weights(self, part: Part, logits: Floats) -> Floats:
        """The weights, after all logits were seen."""
        found = self._arithmetic.exp(logits - self.peak[part][..., None])
        found /= self.mass[part][..., None]
        return found

    def largest(self, part: Part, logits: Floats) -> NDArray[np.bool_]:
        """Which are among the k largest; of equal ones the first."""
        best, spare = self.best[part], self.spare[part]
        least = best.min(axis=-1, keepdims=True)
        spare[:] = np.where(spare < 0, (best == least).sum(axis=-1), spare)
        compared = _compared(logits)
        equal = (compared == least) & (logits > -np.inf)
        if (equal.sum(axis=-1) > spare).any():
            equal &= np.cumsum(equal, axis=-1) <= spare[..., None]
        spare -= equal.sum(axis=-1)
        found: NDArray[np.bool_] = equal | (compared > least)
        return found

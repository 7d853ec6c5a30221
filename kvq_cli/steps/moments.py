"""moments: counts, means and covariances of rows that come in blocks.

    Σ (x - s), Σ (x - s)(x - s)ᵀ        s: the mean of the first block, so that little is lost

Sums are float64 in no stated order: they are measurements, not bytes of a page.
"""

from __future__ import annotations

from typing import Self

import numpy as np

from kvq_cli.quality.arithmetic import Floats


class Moments:
    """Of rows (T, n)."""

    def __init__(self, shift: Floats) -> None:
        size = len(shift)
        self.count = 0
        self._shift = shift
        self._sums = np.zeros(size)
        self._squares = np.zeros((size, size))

    def add(self, rows: Floats) -> None:
        rows = rows - self._shift
        self.count += len(rows)
        self._sums += rows.sum(axis=0)
        self._squares += rows.T @ rows

    @classmethod
    def sum(cls, one: Self, other: Self) -> Self:
        """Those of both, which have one shift."""
        found = cls(one._shift)
        found.count = one.count + other.count
        found._sums = one._sums + other._sums
        found._squares = one._squares + other._squares
        return found

    @property
    def mean(self) -> Floats:
        return self._shift + self._sums / self.count

    def covariance(self, mean: Floats | None = None, part: slice = slice(None)) -> Floats:
        """About the mean, or another one, of some of the dimensions."""
        middle = self._sums[part] / self.count
        found = self._squares[part, part] / self.count
        found -= np.outer(middle, middle)
        if mean is not None:
            off = self._shift[part] + middle - mean[part]
            found += np.outer(off, off)
        return found

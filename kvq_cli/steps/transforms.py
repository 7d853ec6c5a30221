"""transforms: principal components of rows whose errors are weighted.

Spec: formats/transform.md, section "How one is made" (not normative: the file is).

    F                 a weight for each kv head: a matrix, or a number
    C                 the covariance; F C F = B diag(variances) Bᵀ
    forward, restore  F B and Bᵀ F⁻¹, of the components that are kept

Bits are the entropy of a Laplace distribution after a quantiser with a dead zone, a step of
STEP: an estimate that orders transforms, not a promise.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record

STEP: Final = 0.06  # what bits are told at
FINEST: Final = 0.02  # the finest step that somebody uses
SILENT: Final = 0.12  # standard deviations, in steps, of what never leaves the zero cell
DEAD: Final = 0.56  # a coefficient below so many steps becomes 0
NOISE: Final = 1e-12  # of the variance: what eigenvalues are off by, which no two machines share
FLOOR: Final = 0.02  # of a weight's mean eigenvalue: the least that any direction counts


@record(eq=False)
class Weights:
    """Square roots of the weights of n / D heads, (heads, D, D), and their inverses."""

    root: Floats
    inverse: Floats

    @classmethod
    def of(cls, matrices: Floats) -> Weights:
        """Of symmetric matrices (heads, D, D); no direction counts less than FLOOR of the mean."""
        values, vectors = np.linalg.eigh(matrices)
        least = FLOOR * values.mean(axis=-1, keepdims=True)
        roots = np.sqrt(np.maximum(values, least))[:, None, :]
        back = vectors.swapaxes(-1, -2)
        return cls((vectors * roots) @ back, (vectors / roots) @ back)

    def part(self, heads: slice) -> Weights:
        return Weights(self.root[heads], self.inverse[heads])

    def whiten(self, covariance: Floats) -> Floats:
        """F C F."""
        half = by_heads(self.root, covariance)
        return by_heads(self.root, half.T)


@record(eq=False)
class Transform:
    """Of n dimensions, its components in descending order of variance."""

    mean: Floats  # (n,)
    forward: Floats  # (n, rank)
    restore: Floats  # (rank, n)
    variances: Floats  # (rank,)
    deviations: Floats  # (n,) of the dimensions themselves
    lost: float  # variance of the components that were left out, of all weighted variance


def by_heads(weights: Floats, rows: Floats) -> Floats:
    """A block-diagonal matrix (heads, D, D) times (n, m)."""
    heads, channels, _ = weights.shape
    found: Floats = np.matmul(weights, rows.reshape(heads, channels, -1)).reshape(rows.shape)
    return found


def principal(mean: Floats, covariance: Floats, weights: Weights, most: int) -> Transform:
    """The transform of these moments, of at most so many components."""
    variances, basis = np.linalg.eigh(weights.whiten(covariance))
    variances, basis = np.maximum(variances[::-1], 0.0), basis[:, ::-1]
    rank = min(most, int((variances > (SILENT * FINEST) ** 2).sum()))
    whole, rest = variances.sum(), variances[rank:].sum()
    basis = np.ascontiguousarray(basis[:, :rank])
    return Transform(
        mean=mean,
        forward=by_heads(weights.root, basis),
        restore=np.ascontiguousarray(by_heads(weights.inverse, basis).T),
        variances=variances[:rank],
        deviations=np.sqrt(np.maximum(np.diagonal(covariance), 0.0)),
        lost=float(rest / whole) if rest > NOISE * whole else 0.0,
    )


def bits(variances: Floats, step: float = STEP) -> Floats:
    """Entropy of the quantised components, in bits."""
    found = np.zeros(variances.shape)
    loud = variances > (step / 64) ** 2
    rates = np.sqrt(2 / variances[loud]) * step
    zero = -np.expm1(-DEAD * rates)
    stop = -np.expm1(-rates)  # at each further cell
    found[loud] = _entropy(zero) + (1 - zero) * (1 + _entropy(stop) / stop)
    return found


def held_bits(transform: Transform, held: Floats) -> float:
    """Of all components, of rows whose second moment about the transform's mean is `held`."""
    variances = ((held @ transform.forward) * transform.forward).sum(axis=0)
    return float(bits(np.maximum(variances, 0.0)).sum())


def plain_bits(weights: Weights, held: Floats) -> float:
    """Of all dimensions by themselves: each times the root of its own weight."""
    own = np.square(weights.root).sum(axis=-1).reshape(-1)
    return float(bits(np.maximum(np.diagonal(held), 0.0) * own).sum())


def _entropy(share: Floats) -> Floats:
    """Of two outcomes."""
    share = np.clip(share, 1e-300, 1 - 1e-16)
    found: Floats = -(share * np.log2(share) + (1 - share) * np.log2(1 - share))
    return found

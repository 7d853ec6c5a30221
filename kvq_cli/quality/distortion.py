"""quality: what compression cost, as sums that add up over pages.

Spec: formats/report.md, section "Reconstruction error".

    relative_mse  Σ(x-y)² / Σx²          snr_db   10·log10(Σx² / Σ(x-y)²)
    mse           Σ(x-y)² / n            mae      Σ|x-y| / n
    max_error     max|x-y|               cosine   mean over rows of x·y / (|x||y|)

Sums are float64. Elements that are not finite in the original are counted and left out; they
are stored raw. A row that is zero in both has cosine 1, in one of them 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY, MAGNITUDE, convert, widen
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.words import DType


@dataclass(slots=True)
class Distortion:
    """Sums over the elements and rows seen so far."""

    elements: int = 0
    rows: int = 0
    non_finite: int = 0
    squared_error: float = 0.0
    squared_original: float = 0.0
    absolute_error: float = 0.0
    max_error: float = 0.0
    cosines: float = 0.0

    def merge(self, other: Distortion) -> None:
        self.elements += other.elements
        self.rows += other.rows
        self.non_finite += other.non_finite
        self.squared_error += other.squared_error
        self.squared_original += other.squared_original
        self.absolute_error += other.absolute_error
        self.max_error = max(self.max_error, other.max_error)
        self.cosines += other.cosines

    def to_json(self) -> dict[str, Any]:
        """The metrics, to 6 significant digits; None where nothing was there to measure."""
        snr = None
        if self.squared_error > 0 and self.squared_original > 0:
            snr = 10 * math.log10(self.squared_original / self.squared_error)
        return {
            "elements": self.elements,
            "non_finite": self.non_finite,
            "relative_mse": _ratio(self.squared_error, self.squared_original),
            "mse": _ratio(self.squared_error, self.elements),
            "mae": _ratio(self.absolute_error, self.elements),
            "max_error": rounded(self.max_error),
            "cosine": _ratio(self.cosines, self.rows),
            "snr_db": None if snr is None else rounded(snr),
        }


def compare(
    original: NDArray[Any], restored: NDArray[Any], dtype: DType, scratch: Scratch
) -> list[Distortion]:
    """The distortion of each head of a page given as bits, (H, T, D)."""
    before = _wide(original, dtype, scratch, "quality.before")
    after = _wide(restored, dtype, scratch, "quality.after")
    finite = np.isfinite(before)
    if not finite.all():
        np.copyto(before, 0.0, where=~finite)
        np.copyto(after, 0.0, where=~finite)
    error = scratch.take("quality.error", before.shape, np.float64)
    np.subtract(before, after, out=error)
    squared = np.einsum("htd,htd->h", error, error)
    np.abs(error, out=error)
    absolute, largest = error.sum(axis=(1, 2)), error.max(axis=(1, 2))
    energy = np.einsum("htd,htd->ht", before, before)
    other = np.einsum("htd,htd->ht", after, after)
    cosines = _cosines(np.einsum("htd,htd->ht", before, after), energy, other).sum(axis=1)
    counts = finite.sum(axis=(1, 2))
    total = before[0].size
    return [
        Distortion(
            elements=int(counts[head]),
            rows=before.shape[1],
            non_finite=total - int(counts[head]),
            squared_error=float(squared[head]),
            squared_original=float(energy[head].sum()),
            absolute_error=float(absolute[head]),
            max_error=float(largest[head]),
            cosines=float(cosines[head]),
        )
        for head in range(before.shape[0])
    ]


def widened(bits: NDArray[Any], dtype: DType) -> NDArray[np.float64]:
    """The numbers as float64, exactly, in memory of their own; what is not finite as 0."""
    if not bits.size or (bits & MAGNITUDE[dtype]).max() < INFINITY[dtype]:
        words = np.empty(bits.shape, np.float32)
        widen(bits, dtype, words)
        return words.astype(np.float64)
    wide = _wide(bits, dtype, Scratch(), "widened")
    return np.nan_to_num(wide, copy=False, nan=0.0, posinf=0.0, neginf=0.0)


def _wide(bits: NDArray[Any], dtype: DType, scratch: Scratch, name: str) -> NDArray[np.float64]:
    words = scratch.take(f"{name}.f32", bits.shape, np.uint32)
    convert(bits, dtype, DType.F32, words, scratch)
    wide = scratch.take(name, bits.shape, np.float64)
    # A signalling NaN is no reason to warn: it is counted, and left out.
    with np.errstate(invalid="ignore"):
        np.copyto(wide, words.view(np.float32))
    return wide


def _cosines(
    products: NDArray[np.float64], before: NDArray[np.float64], after: NDArray[np.float64]
) -> NDArray[np.float64]:
    lengths = np.sqrt(before) * np.sqrt(after)
    same = (before == 0) & (after == 0)
    cosines: NDArray[np.float64] = same.astype(np.float64)
    np.divide(products, lengths, out=cosines, where=lengths > 0)
    return cosines


def _ratio(dividend: float, divisor: float) -> float | None:
    if divisor == 0:
        return None if dividend else 0.0
    return rounded(dividend / divisor)


def rounded(number: float) -> float:
    """To 6 significant digits."""
    return float(f"{number:.6g}")

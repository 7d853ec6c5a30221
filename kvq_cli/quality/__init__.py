"""quality: what compression cost: of the elements, and of the attention that reads them.

Spec: formats/report.md, sections "Reconstruction error" and "Attention".

    distortion    errors of elements and rows, as sums that add up over pages
    attention     what becomes of logits, weights and outputs, block by block of tokens
    softmax       weights of logits that come block by block
    sides         rows and logits before and after, made and kept
    rope          rotary positions, for keys that were stored without
    arithmetic    the products and sums of both: as near as float64 gets, or the same everywhere
"""

from __future__ import annotations

from kvq_cli.quality.arithmetic import EXACT, FLOATS, Arithmetic
from kvq_cli.quality.attention import METRICS, Attention, Drift
from kvq_cli.quality.distortion import Distortion, compare, widened
from kvq_cli.quality.rope import Rope
from kvq_cli.quality.sides import Kept, Read, Side, Sides

__all__ = [
    "EXACT",
    "FLOATS",
    "METRICS",
    "Arithmetic",
    "Attention",
    "Distortion",
    "Drift",
    "Kept",
    "Read",
    "Rope",
    "Side",
    "Sides",
    "compare",
    "widened",
]

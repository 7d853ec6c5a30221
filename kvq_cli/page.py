"""page: the (H, T, D) block of bits that codecs take and give.

Spec: formats/README.md, section "Words".

A page belongs to one role and batch entry, one layer or several that follow each other, a token
range and a set of kv heads; H counts the heads of all its layers. It carries the capture's own
bits, so a lossless codec is exact down to the last NaN payload; a lossy one widens and narrows
them by kvq_cli.numerics.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from kvq_cli.record import record
from kvq_cli.words import DType, PageKey, PageSpec, Reason, Role

__all__ = ["DType", "Page", "PageKey", "PageSpec", "Reason", "Role"]


@record(eq=False)
class Page:
    """A page and the bits of its elements, (H, T, D), C-contiguous."""

    spec: PageSpec
    bits: NDArray[Any]

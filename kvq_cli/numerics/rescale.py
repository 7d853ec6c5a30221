"""rescale: codes times scales, rounded once to the bits of a dtype.

Law: docs/architecture.md. The product is one float32 multiplication, the rounding half to
even. A power of two that a conversion needs is folded into the scale where nothing is
subnormal: the product then rounds as it would without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import (
    LARGEST,
    OVERFLOW,
    SMALLEST_NORMAL,
    UNIT,
    gather,
    narrow,
)
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType


@dataclass(frozen=True, slots=True)
class Rescale:
    """From `source` pages to `target` bits; no |code| but 0 is below 1 or above `largest`."""

    source: DType
    target: DType
    largest: float
    scratch: Scratch

    def __call__(
        self, codes: NDArray[np.int8], scales: NDArray[np.float32], out: NDArray[Any]
    ) -> None:
        """Write codes · scales, which broadcast, to `out`.

        The source's own dtype is never overflowed: what is beyond it becomes its largest
        number. Another dtype is: CodecError.
        """
        target, scratch = self.target, self.scratch
        values = scratch.take("rescale", out.shape, np.float32)
        np.copyto(values, codes)
        floor = float(scales.min())
        if floor == 0:
            floor = float(np.where(scales > 0, scales, np.inf).min())
        if float(scales.max()) * self.largest >= LARGEST[target]:
            self._multiply_and_limit(values, scales)
            narrow(values, target, out, scratch, floor=floor)
        elif target is DType.F32:
            np.multiply(values, scales, out=out.view(np.float32))
        elif floor >= SMALLEST_NORMAL[target]:
            np.multiply(values, scales * (1 / UNIT[target]), out=values)
            gather(values, target, out, scratch, signs=codes)
        else:
            np.multiply(values, scales, out=values)
            narrow(values, target, out, scratch, floor=floor)

    def _multiply_and_limit(self, values: NDArray[np.float32], scales: NDArray[np.float32]) -> None:
        with np.errstate(over="ignore"):
            np.multiply(values, scales, out=values)
        limit = np.float32(LARGEST[self.target])
        if self.target is self.source:
            np.clip(values, -limit, limit, out=values)
        elif float(np.abs(values).max()) >= OVERFLOW[self.target]:
            raise CodecError(
                "E501",
                f"a restored {self.source} number is beyond the largest finite {self.target}",
            )

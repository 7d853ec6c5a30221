"""fp8_e5m2: 8-bit floats of 5 exponent and 2 mantissa bits, one scale per token.

Spec: formats/codecs/fp8_e5m2.md, revision 1.

    code = x / scale as E5M2, half to even, never infinity or NaN
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.scaled import Scaled
from kvq_cli.numerics.fp8 import E5M2, check_finite
from kvq_cli.numerics.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Fp8E5M2(Scaled):
    """A row is a token's channels of one head."""

    name: ClassVar[str] = "fp8_e5m2"
    revision: ClassVar[int] = 1
    largest: ClassVar[float] = E5M2.largest
    least: ClassVar[float] = E5M2.least
    code: ClassVar[str] = "|u1"

    def to_codes(self, values: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        E5M2.encode(values, out, scratch)

    def from_codes(self, codes: NDArray[Any], out: NDArray[np.float32]) -> None:
        E5M2.decode(codes, out)

    def check_codes(self, codes: NDArray[Any]) -> None:
        check_finite(codes, E5M2, self.name)

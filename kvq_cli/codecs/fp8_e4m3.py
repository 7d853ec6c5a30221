"""fp8_e4m3: 8-bit floats of 4 exponent and 3 mantissa bits, one scale per token.

Spec: formats/codecs/fp8_e4m3.md, revision 1.

    code = x / scale as E4M3, half to even, never infinity or NaN
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.scaled import Scaled
from kvq_cli.numerics.fp8 import E4M3, check_finite
from kvq_cli.numerics.scratch import Scratch


@dataclass(frozen=True, slots=True)
class Fp8E4M3(Scaled):
    """A row is a token's channels of one head."""

    name: ClassVar[str] = "fp8_e4m3"
    revision: ClassVar[int] = 1
    largest: ClassVar[float] = E4M3.largest
    least: ClassVar[float] = E4M3.least
    code: ClassVar[str] = "|u1"

    def to_codes(self, values: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        E4M3.encode(values, out, scratch)

    def from_codes(self, codes: NDArray[Any], out: NDArray[np.float32]) -> None:
        E4M3.decode(codes, out)

    def check_codes(self, codes: NDArray[Any]) -> None:
        check_finite(codes, E4M3, self.name)

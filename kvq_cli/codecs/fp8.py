"""fp8: what the two codecs of 8-bit floats have in common: all but the format.

Spec: formats/codecs/README.md, section "8-bit floats".

    code = x / scale in the format, half to even, never infinity or NaN
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.scaled import Scaled
from kvq_cli.numerics.fp8 import Float8, check_finite
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record


@record
class Fp8(Scaled):
    """A row is a token's channels of one head."""

    form: ClassVar[Float8]
    code: ClassVar[str] = "|u1"

    def to_codes(self, values: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        self.form.encode(values, out, scratch)

    def from_codes(self, codes: NDArray[Any], out: NDArray[np.float32]) -> None:
        self.form.decode(codes, out)

    def check_codes(self, codes: NDArray[Any]) -> None:
        check_finite(codes, self.form, self.name)

"""fp8_e4m3: 8-bit floats of 4 exponent and 3 mantissa bits, one scale per token.

Spec: formats/codecs/fp8_e4m3.md, revision 1.
"""

from __future__ import annotations

from typing import ClassVar

from kvq_cli.codecs.fp8 import Fp8
from kvq_cli.numerics.fp8 import E4M3, Float8
from kvq_cli.record import record


@record
class Fp8E4M3(Fp8):
    """Scaled so that the largest of a row is 448."""

    name: ClassVar[str] = "fp8_e4m3"
    revision: ClassVar[int] = 1
    form: ClassVar[Float8] = E4M3
    largest: ClassVar[float] = E4M3.largest
    least: ClassVar[float] = E4M3.least

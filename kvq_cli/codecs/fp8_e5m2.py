"""fp8_e5m2: 8-bit floats of 5 exponent and 2 mantissa bits, one scale per token.

Spec: formats/codecs/fp8_e5m2.md, revision 1.
"""

from __future__ import annotations

from typing import ClassVar

from kvq_cli.codecs.fp8 import Fp8
from kvq_cli.numerics.fp8 import E5M2, Float8
from kvq_cli.record import record


@record
class Fp8E5M2(Fp8):
    """Scaled so that the largest of a row is 57344."""

    name: ClassVar[str] = "fp8_e5m2"
    revision: ClassVar[int] = 1
    form: ClassVar[Float8] = E5M2
    largest: ClassVar[float] = E5M2.largest
    least: ClassVar[float] = E5M2.least

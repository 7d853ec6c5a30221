"""fp8: float32 to 8-bit floats and back, by integer operations.

Spec: formats/codecs/README.md, section "8-bit floats".

    f32 → fp8    from the smallest normal up: add half a unit less one and the bit that decides
                 ties, shift right; below: bits(|x| + magic) - bits(magic), where one unit in
                 the last place of magic is the spacing of subnormals
    fp8 → f32    sign-extend, shift left, clear what the sign smeared; · a power of two

Rounding is half to even. Numbers are finite and round to no more than `largest`.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import patch, shift_rounded, subnormals
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record


@record
class Float8:
    """One format: a sign, an exponent with a bias, `mantissa` bits."""

    mantissa: int
    bias: int
    largest: float
    largest_code: int  # greater magnitudes are infinity or NaN

    @property
    def least(self) -> float:
        """The smallest subnormal."""
        return math.ldexp(1.0, 1 - self.bias - self.mantissa)

    def encode(self, values: NDArray[np.float32], out: NDArray[np.uint8], scratch: Scratch) -> None:
        """The codes of values."""
        words = values.view(np.uint32)
        rounded = scratch.take("fp8", values.shape, np.uint32)
        shift = 23 - self.mantissa
        shift_rounded(words, shift, rounded)
        # Sign, 8 bits of exponent, mantissa: 11 or 12 bits.
        codes = scratch.take("fp8.codes", values.shape, np.uint16)
        np.copyto(codes, rounded, casting="unsafe")
        magnitudes = scratch.take("fp8.magnitudes", values.shape, np.uint16)
        sign = 8 + self.mantissa
        np.bitwise_and(codes, (1 << sign) - 1, out=magnitudes)
        np.right_shift(codes, sign - 7, out=codes)
        np.bitwise_and(codes, 0x80, out=codes)
        base = (127 - self.bias) << self.mantissa
        np.add(codes, magnitudes, out=codes)
        np.subtract(codes, base, out=codes)
        np.copyto(out, codes, casting="unsafe")
        small = np.less(magnitudes, base + (1 << self.mantissa) + 1)
        patch(values, small, self._small, out)

    def decode(self, codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
        """The numbers of finite codes."""
        words = out.view(np.int32)
        np.copyto(words, codes.view(np.int8))
        np.left_shift(words, 23 - self.mantissa, out=words)
        np.bitwise_and(words, _KEPT[self.mantissa], out=words)
        np.multiply(out, np.float32(math.ldexp(1.0, 127 - self.bias)), out=out)

    def _small(self, values: NDArray[np.float32]) -> NDArray[Any]:
        return subnormals(values, np.float32(math.ldexp(1.0, 24 - self.bias - self.mantissa)), 8)


# The sign, four or five exponent bits and the mantissa, where decode puts them.
_KEPT: Final = {3: np.int32(-0x78100000), 2: np.int32(-0x70200000)}
E4M3: Final = Float8(mantissa=3, bias=7, largest=448.0, largest_code=0x7E)
E5M2: Final = Float8(mantissa=2, bias=15, largest=57344.0, largest_code=0x7B)


def check_finite(codes: NDArray[np.uint8], form: Float8, codec: str) -> None:
    """CodecError E502 where a code is infinite or NaN: encoders saturate."""
    # Doubling drops the sign.
    if int((codes << 1).max(initial=0)) > 2 * form.largest_code:
        raise CodecError("E502", f"{codec}: a code is not finite")

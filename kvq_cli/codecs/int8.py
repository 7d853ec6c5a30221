"""int8: symmetric 8-bit codes, one scale per row.

Spec: formats/codecs/int8.md, revision 1.

    code = round(x / scale), half to even, from -127 to 127

A row is one token's D channels (axis "token") or one channel over the page's T tokens (axis
"channel") of one head.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.scaled import Scaled
from kvq_cli.errors import CodecError
from kvq_cli.numerics.centre import ROUNDER
from kvq_cli.numerics.groups import Axis
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

MAX_CODE: Final = 127  # -128 stays unused: the code range is symmetric


@record
class Int8(Scaled):
    """What a row is, besides."""

    name: ClassVar[str] = "int8"
    revision: ClassVar[int] = 1
    largest: ClassVar[float] = MAX_CODE
    least: ClassVar[float] = 1
    code: ClassVar[str] = "|i1"

    axis: Axis = "token"

    @property
    def rows(self) -> Axis:
        return self.axis

    def to_codes(self, values: NDArray[np.float32], out: NDArray[Any], _scratch: Scratch) -> None:
        np.add(values, ROUNDER, out=values)
        np.copyto(out, values.view(np.int32), casting="unsafe")

    def from_codes(self, codes: NDArray[Any], out: NDArray[np.float32]) -> None:
        np.copyto(out, codes)

    def check_codes(self, codes: NDArray[Any]) -> None:
        if int(codes.min()) < -MAX_CODE:
            raise CodecError("E502", "int8: a code of -128, codes go from -127 to 127")

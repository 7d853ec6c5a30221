"""raw: the source bits.

Spec: formats/codecs/raw.md, revision 1.
"""

from __future__ import annotations

from typing import ClassVar

from kvq_cli.codecs import Codec
from kvq_cli.numerics.bits import convert
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import tiles
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record


@record
class Raw(Codec):
    """No parameters."""

    name: ClassVar[str] = "raw"
    revision: ClassVar[int] = 1
    lossless: ClassVar[bool] = True

    def layout(self, spec: PageSpec) -> Layout:
        return (Plane("bits", spec.dtype.bits, spec.shape, "HTD"),)

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        del scratch  # The page is its own plane.
        bits = page.bits.view()
        bits.flags.writeable = False
        return {"bits": bits}

    def check(self, planes: Planes, spec: PageSpec) -> None:
        """Any bits are a page."""

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        bits = planes["bits"]
        for tile in tiles(spec.shape):
            convert(bits[tile], spec.dtype, into.spec.dtype, into.bits[tile], scratch)

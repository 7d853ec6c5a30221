"""scaled: what the byte codecs have in common: a scale per row, and a code per element.

Spec: formats/codecs/README.md, sections "Scales" and "Restoring".

    scale = peak of the row / largest code      code = x · (1 / scale), rounded
    x'    = code · scale + mean                 rounded once more, to the dtype

A codec says what its codes are; with `center`, the rows are those of the page less its means.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, arrays_for
from kvq_cli.codecs.centred import check_centred, furthest, means_of, planes_of, reached, source
from kvq_cli.numerics import scales
from kvq_cli.numerics.exact import require_subnormals
from kvq_cli.numerics.groups import Axis, Groups
from kvq_cli.numerics.restore import Restore
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import part, tiles
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record


@record
class Scaled(Codec):
    """How scales are stored, and whether means are taken off first."""

    lossless: ClassVar[bool] = False
    largest: ClassVar[float]  # magnitude of a code
    least: ClassVar[float]  # likewise, 0 apart
    code: ClassVar[str]  # dtype of the codes

    scale: scales.ScaleType = "f32"
    center: bool = False

    @property
    def rows(self) -> Axis:
        """What shares a scale: the channels of a token, or the tokens of a channel."""
        return "token"

    @abstractmethod
    def to_codes(self, values: NDArray[np.float32], out: NDArray[Any], scratch: Scratch) -> None:
        """Round numbers of at most `largest`, rounding errors apart; may use them up."""

    @abstractmethod
    def from_codes(self, codes: NDArray[Any], out: NDArray[np.float32]) -> None:
        """The numbers that codes stand for."""

    def layout(self, spec: PageSpec) -> Layout:
        shape = Groups(self.rows).shape(spec.shape)
        axes = "HT1" if self.rows == "token" else "H1D"
        return (
            *(planes_of(spec, self.rows) if self.center else ()),
            Plane("scales", scales.PLANE[self.scale], shape, axes),
            Plane("codes", self.code, spec.shape, "HTD"),
        )

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        planes = arrays_for(self.layout(page.spec), scratch)
        groups = Groups(self.rows)
        for block in source(self.name, page, planes, scratch, whole=self.rows == "channel"):
            reach = reached(self.name, page, block, groups, scratch)
            stored = scales.stored(reach, self.largest, self.scale, self.name)
            np.copyto(part(planes["scales"], block.tile), stored)
            divisor = scales.Divisor.by(scales.wide(stored))
            divisor.elements(block.values, groups, block.unit)
            self.to_codes(block.values, planes["codes"][block.tile], scratch)
        return planes

    def check(self, planes: Planes, spec: PageSpec) -> None:
        reach = furthest(spec.dtype, center=self.center)
        most = scales.largest_bits(reach, self.largest, self.scale)
        scales.check(scales.bits_of(planes["scales"]), most, self.name)
        check_centred(planes, spec, self.name)
        self.check_codes(planes["codes"])

    @abstractmethod
    def check_codes(self, codes: NDArray[Any]) -> None:
        """CodecError E502 where a code is one that no encoder writes."""

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        factors, groups = scales.wide(planes["scales"]), Groups(self.rows)
        restore = Restore(
            spec.dtype,
            into.spec.dtype,
            groups,
            self.least,
            self.largest,
            means_of(planes, spec),
            scratch,
        )
        for tile in tiles(spec.shape, whole=self.rows == "channel"):
            codes = planes["codes"][tile]
            values = scratch.take("block", codes.shape, np.float32)
            self.from_codes(codes, values)
            scale = part(factors, tile)
            restore(values, scale, into.bits[tile], tile, signs=codes.view(np.int8))

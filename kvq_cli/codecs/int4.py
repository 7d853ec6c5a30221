"""int4: 4-bit codes in groups of channels, with or without a zero point.

Spec: formats/codecs/int4.md, revision 1.

    symmetric        x' = (code - 8) · scale        the largest magnitude gets code 0
    zero_point       x' = (16 · code + zero) · (scale / 16)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from kvq_cli.codecs.gridded import Gridded
from kvq_cli.numerics.groups import Groups
from kvq_cli.record import record


@record
class Int4(Gridded):
    """Channels to a group, and what a grid looks like."""

    name: ClassVar[str] = "int4"
    revision: ClassVar[int] = 1

    group: Literal[32, 64, 128] = 64
    zero_point: bool = False
    center: bool = False

    @property
    def groups(self) -> Groups:
        return Groups("token", self.group)

    @property
    def width(self) -> int:
        return 4

    @property
    def zeroed(self) -> bool:
        return self.zero_point

    @property
    def centred(self) -> bool:
        return self.center

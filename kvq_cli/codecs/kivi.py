"""kivi: codes of 2, 3, 4 or 8 bits between the least and the greatest of a group.

Spec: formats/codecs/kivi.md, revision 1.

    x' = (16 · code + zero) · (scale / 16)

Groups are neighbouring tokens of one channel (axis "channel", for keys) or neighbouring
channels of one token (axis "token", for values).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from kvq_cli.codecs.gridded import Gridded
from kvq_cli.numerics.groups import Axis, Groups
from kvq_cli.record import record


@record
class Kivi(Gridded):
    """Bits of a code, elements to a group, and what they are neighbours along."""

    name: ClassVar[str] = "kivi"
    revision: ClassVar[int] = 1

    bits: Literal[2, 3, 4, 8] = 4
    group: Literal[32, 64, 128] = 32
    axis: Axis = "channel"

    @property
    def groups(self) -> Groups:
        return Groups(self.axis, self.group)

    @property
    def width(self) -> int:
        return self.bits

    @property
    def zeroed(self) -> bool:
        return True

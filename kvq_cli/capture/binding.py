"""binding: a tensor that holds keys or values, or both, and where their rows lie in it.

Spec: formats/capture.md, section "Bindings".

Axes are letters, in memory order: B batch, L layers, R role (keys, then values), H kv heads,
T tokens, D channels; t splits tokens, T then counts blocks of t. Their lengths multiply to the
tensor's, whose dimensions may hold several of them: [tokens, heads · channels] is T, HD. Where
keys and values lie in another order behind R, a comma parts the two: "THRDt,THRtD".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Final, TypeAlias

from kvq_cli.capture.header import Tensor
from kvq_cli.capture.slab import Slab
from kvq_cli.record import record
from kvq_cli.words import DType, Role

LETTERS: Final = "BLRHTtD"
INTEGERS: Final = {"I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}

Number: TypeAlias = Tensor | int  # an integer, or a tensor of one


def is_number(tensor: Tensor) -> bool:
    """Whether it holds one integer, which is read when the capture is opened."""
    return tensor.dtype in INTEGERS and math.prod(tensor.shape) == 1


@record
class Binding:
    """A tensor of keys or values, or of both; layers and heads are numbered from the first."""

    tensor: Tensor
    roles: tuple[Role, ...]
    axes: str
    lengths: Mapping[str, int]
    first_layer: int = 0
    first_head: int = 0
    stored: int | None = None  # tokens that count; the others are zeros; None: all
    count: Number | None = field(default=None, compare=False)  # that tells `stored`

    def length(self, letter: str) -> int:
        return self.lengths.get(letter, 1)

    @property
    def tokens(self) -> int:
        """All that the tensor has room for."""
        return self.length("T") * self.length("t")

    @property
    def layers(self) -> range:
        return range(self.first_layer, self.first_layer + self.length("L"))

    @property
    def heads(self) -> range:
        return range(self.first_head, self.first_head + self.length("H"))

    def order(self, role: Role) -> str:
        """The axes of one role, in memory order."""
        orders = self.axes.split(",")
        return orders[self.roles.index(role) % len(orders)]

    def stride(self, role: Role, letter: str) -> int:
        """Bytes from one to the next; 0 for a missing axis."""
        order = self.order(role)
        if letter not in order:
            return 0
        inner = math.prod(map(self.length, order[order.index(letter) + 1 :]))
        return inner * DType(self.tensor.dtype).size


def bound(
    tensor: Tensor,
    roles: Role | Sequence[Role],
    axes: str,
    first_layer: int = 0,
    first_head: int = 0,
    **known: int,
) -> Binding | None:
    """The binding by axes such as "BHTD", a letter a dimension, or "R,T,HD"; None if unfit.

    `known` gives lengths of letters that share a dimension, all but one of each.
    """
    groups = axes.split(",") if "," in axes else list(axes)
    lengths = split(tensor.shape, groups, known)
    if lengths is None:
        return None
    each = (roles,) if isinstance(roles, Role) else tuple(roles)
    if lengths.get("R", 1) != len(each):
        return None
    return Binding(tensor, each, "".join(groups), lengths, first_layer, first_head)


def split(
    shape: Sequence[int], groups: Sequence[str], known: Mapping[str, int]
) -> dict[str, int] | None:
    """The length of each letter, where dimension i holds those of groups[i]; None if unfit."""
    if len(groups) != len(shape):
        return None
    found: dict[str, int] = {}
    for size, group in zip(shape, groups, strict=True):
        inner = {letter: known[letter] for letter in group if letter in known}
        rest, left = divmod(size, math.prod(inner.values()) or 1)
        open_letters = [letter for letter in group if letter not in inner]
        if left or len(open_letters) > 1 or (not open_letters and rest != 1):
            return None
        found |= inner | dict.fromkeys(open_letters, rest)
    return found


def slabs_of(binding: Binding) -> list[Slab]:
    """The slabs of a binding, by role, batch entry and layer."""
    return [
        _slab(binding, role, batch, at)
        for role in binding.roles
        for batch in range(binding.length("B"))
        for at in range(binding.length("L"))
    ]


def _slab(binding: Binding, role: Role, batch: int, at: int) -> Slab:
    def stride(letter: str) -> int:
        return binding.stride(role, letter)

    half = binding.roles.index(role) * stride("R")
    offset = binding.tensor.start + half + batch * stride("B") + at * stride("L")
    blocks = binding.length("t") if "t" in binding.axes else 0
    return Slab(
        role=role,
        batch=batch,
        layer=binding.first_layer + at,
        tensor=binding.tensor.name,
        starts=range(offset, offset + binding.length("H") * (stride("H") or 1), stride("H") or 1),
        tokens=binding.tokens if binding.stored is None else binding.stored,
        channels=binding.length("D"),
        dtype=DType(binding.tensor.dtype),
        token_stride=stride("t") if blocks else stride("T"),
        channel_stride=stride("D"),
        block=blocks,
        block_stride=stride("T") if blocks else 0,
    )

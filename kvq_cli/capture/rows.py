"""rows: how many tokens of a tensor count, and which tensors together make a layer.

Spec: formats/capture.md, sections "Bindings" and "Padded tensors".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.binding import Binding, slabs_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.slab import Slab, read_rows
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError
from kvq_cli.words import Role

COUNTS: Final = {"I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}
PIECE: Final = 1 << 12  # tokens looked at together

Slabs: TypeAlias = Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer


def settled(source: Source, binding: Binding) -> Binding:
    """The binding with as many tokens as its count says, if those behind are all zeros.

    Else every token counts: what is behind them would be lost.
    """
    if binding.count is None:
        return binding
    stored = _told(source, binding.count)
    if not 0 < stored < binding.tokens or not _only_zeros(source, binding, stored):
        return replace(binding, count=None)
    return replace(binding, stored=stored, count=None)


def _told(source: Source, tensor: Tensor) -> int:
    data = bytearray(tensor.nbytes)
    source.read_into(tensor.start, data)
    return int(np.frombuffer(data, COUNTS[tensor.dtype])[0])


def _only_zeros(source: Source, binding: Binding, start: int) -> bool:
    for slab in slabs_of(binding):
        for first in range(start, slab.tokens, PIECE):
            last = min(first + PIECE, slab.tokens)
            shape = (slab.heads, last - first, slab.channels)
            rows: NDArray[Any] = np.empty(shape, slab.dtype.bits)
            read_rows(source, slab, range(slab.heads), first, last, rows)
            if rows.any():
                return False
    return True


def joined(files: Files, bindings: Iterable[Binding]) -> Slabs:
    """The slabs of all bindings; those of one layer whose heads lie in several tensors joined."""
    parts: dict[tuple[Role, int, int], list[tuple[int, Slab, Tensor]]] = {}
    for binding in bindings:
        for slab in slabs_of(binding):
            place = (slab.role, slab.batch, slab.layer)
            parts.setdefault(place, []).append((binding.first_head, slab, binding.tensor))
    return {place: _one(files, place[0], each) for place, each in parts.items()}


def _one(files: Files, role: Role, parts: list[tuple[int, Slab, Tensor]]) -> Slab:
    first, slab, tensor = parts[0]
    if len(parts) == 1 and first == 0:
        return slab
    parts.sort(key=lambda part: part[0])
    starts: list[int] = []
    holder = tensor
    for head, each, tensor in parts:
        label = shown(files.label(tensor))
        if head < len(starts):
            held = f'which "{shown(files.label(holder))}" holds already'
            what = f"{role.word} of layer {each.layer}, {held}"
            raise CaptureError("E202", what, label)
        if head > len(starts):
            what = f"heads {len(starts)} to {head - 1} of layer {each.layer} are missing"
            raise CaptureError("E202", f"{role.word}: {what}", label)
        if replace(each, starts=(), tensor="") != replace(slab, starts=(), tensor=""):
            what = f"heads of layer {each.layer} differ in tokens, channels or dtype"
            raise CaptureError("E202", f"{role.word}: {what}", label)
        starts += each.starts
        holder = tensor
    return replace(slab, starts=_even(starts))


def _even(starts: Sequence[int]) -> Sequence[int]:
    """As a range where it is one, which readers take together."""
    step = starts[1] - starts[0] if len(starts) > 1 else 1
    even = range(starts[0], starts[0] + len(starts) * step, step) if step > 0 else None
    return even if even is not None and list(even) == list(starts) else tuple(starts)

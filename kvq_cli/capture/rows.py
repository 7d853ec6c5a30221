"""rows: how many tokens of a tensor count, and which tensors together make a layer.

Spec: formats/capture.md, sections "Bindings" and "Padded tensors".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.binding import INTEGERS, Binding, Number, slabs_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.slab import Slab, read_rows
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError
from kvq_cli.words import Role

PIECE: Final = 1 << 12  # tokens looked at together
# What became of counts: how many layers of how many, and the first of them.
WHOLE: Final = ""  # of which there is nothing to tell
PADDED: Final = (
    "{} of {} layers have room for more tokens than they count ({}); what lies behind is zeros, "
    "which are not stored, though a ratio counts them"
)
WINDOW: Final = (
    "{} of {} layers counted more tokens than they hold ({}): they keep a window of the text, "
    "perhaps rotated. Tokens are taken as they lie, so places are not positions, and attention "
    "of causal queries over them is not to be trusted"
)
NOTHING: Final = "{} of {} layers count no tokens ({}): all that they hold are taken"
BEHIND: Final = (
    "{} of {} layers count fewer tokens than they hold ({}), and not all that lies behind is "
    "zero: all are taken"
)

Group: TypeAlias = tuple[range, Number | None]  # the layers of bindings, and their count
Slabs: TypeAlias = Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer


def settled(source: Source, bindings: Sequence[Binding]) -> tuple[list[Binding], list[str]]:
    """The bindings with as many tokens as their counts say, if those behind are all zeros.

    Else every token counts: what is behind them would be lost. The keys and the values of a
    layer go together. The notes tell which counts were not believed.
    """
    groups: dict[Group, list[Binding]] = {}
    for each in bindings:
        groups.setdefault((each.layers, each.count), []).append(each)
    stored: dict[Group, int] = {}
    cases: dict[str, list[str]] = {}
    for (layers, count), group in groups.items():
        if count is not None:
            told, room = number(source, count), max(each.tokens for each in group)
            what = _made_of(source, group, told, room)
            cases.setdefault(what, []).append(f"layer {layers[0]}: {told}, room {room}")
            if what in (WHOLE, PADDED):
                stored[layers, count] = told
    taken = [
        replace(each, count=None, stored=stored.get((each.layers, each.count))) for each in bindings
    ]
    notes = [what.format(len(each), len(groups), each[0]) for what, each in cases.items()]
    return taken, list(filter(None, notes))


def _made_of(source: Source, group: Sequence[Binding], told: int, room: int) -> str:
    """What became of the count of a layer."""
    if told > min(each.tokens for each in group):
        return WINDOW
    if told < 1:
        return NOTHING
    if told == room:
        return WHOLE
    return PADDED if all(_only_zeros(source, each, told) for each in group) else BEHIND


def number(source: Source, told: Number) -> int:
    """An integer of the capture; one that no tensor holds is itself."""
    if isinstance(told, int):
        return told
    data = bytearray(told.nbytes)
    source.read_into(told.start, data)
    return int(np.frombuffer(data, INTEGERS[told.dtype])[0])


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
            hint = "; a folder is one capture, others are given by name" if files.folder else ""
            what = f"{role.word} of layer {each.layer}, {held}{hint}"
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

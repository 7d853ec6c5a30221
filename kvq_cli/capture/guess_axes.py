"""guess_axes: what the dimensions of a family of tensors are, and what is not certain of it.

Spec: formats/layout_map.md, section "Proposals".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kvq_cli.record import record

MANY: Final = 128  # no model has more kv heads
# Usual lengths of a head; those in front are tried first where heads and channels are one.
HEAD_SIZES: Final = (128, 64, 96, 80, 256, 32, 112, 160, 72, 48, 40)
LEAST: Final = 16
MOST: Final = 256


@record
class Known:
    """What the files tell of lengths: metadata, and tensors that go with the tokens."""

    tokens: frozenset[int]
    heads: int | None
    channels: int | None


class UnclearError(Exception):
    """Nothing tells the axes; the text says why."""


@dataclass(slots=True)
class Axes:
    """A proposal: letters of each dimension, lengths that they need, and doubts."""

    groups: list[str]
    lengths: dict[str, int] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        joined = ",".join(self.groups)
        return joined if any(len(each) > 1 for each in self.groups) else "".join(self.groups)


def guess_axes(
    shapes: Sequence[tuple[int, ...]], known: Known, *, both: bool, layer: bool, head: bool
) -> Axes:
    """The axes of tensors of these shapes; UnclearError where nothing tells them.

    `layer` and `head` say whether names number them, so that no dimension does.
    """
    shape = max(shapes, key=math.prod)
    axes = Axes([""] * len(shape))
    if both:
        _take_roles(axes, shape)
    _take_channels(axes, shapes, shape, known)
    _take_tokens(axes, shapes, shape, known)
    rest = [at for at, letter in enumerate(axes.groups) if not letter]
    wide = _is_wide(shape[_place(axes, "D")], known)
    letters = _rest([shape[at] for at in rest], wide=wide, layer=layer, head=head)
    if letters is None or "T" not in axes.groups:
        raise UnclearError(f"nothing tells what the {len(shape)} dimensions are")
    for at, letter in zip(rest, letters, strict=True):
        axes.groups[at] = letter
    if both and not any("R" in group for group in axes.groups):
        if not head and "H" not in axes.groups:
            raise UnclearError("one row a token is neither keys nor values, but perhaps latents")
        _halve(axes, shape)
    elif not head and "H" not in axes.groups:
        _split_channels(axes, shape, known)
    _tell_doubts(axes, shape, layer=layer)
    return axes


def _place(axes: Axes, letter: str) -> int:
    return next(at for at, group in enumerate(axes.groups) if letter in group)


def _take_roles(axes: Axes, shape: Sequence[int]) -> None:
    """The first dimension of length 2, before the last two, holds keys and values."""
    twos = [at for at, size in enumerate(shape[:-2]) if size == 2]
    if twos:
        axes.groups[twos[0]] = "R"
    if len(twos) > 1:
        axes.doubts.append("several dimensions have length 2: the first is taken for R")


def _take_channels(
    axes: Axes, shapes: Sequence[tuple[int, ...]], shape: Sequence[int], known: Known
) -> None:
    """The last dimension, or the one before it where only that can be a head's channels."""
    last = len(shape) - 1
    before = last - 1
    if not axes.groups[before] and _is_channels(before, shapes, known):
        turned = not _is_channels(last, shapes, known)
        if turned or (shape[before] == known.channels and shape[last] in known.tokens):
            axes.groups[before] = "D"
            axes.doubts.append(f"channels seem to lie before tokens: {list(shape)}")
            return
    axes.groups[last] = "D"


def _is_channels(at: int, shapes: Sequence[tuple[int, ...]], known: Known) -> bool:
    """Whether a dimension may be channels: of one length in all tensors, and a usual one."""
    sizes = {shape[at] for shape in shapes}
    size = min(sizes)
    if len(sizes) > 1 or (size in known.tokens and size != known.channels):
        return False
    if known.channels is not None and size % known.channels == 0:
        return True
    # Beyond one head, several may share the dimension.
    return size % 64 == 0 if size > MOST else size >= LEAST and size % 8 == 0


def _take_tokens(
    axes: Axes, shapes: Sequence[tuple[int, ...]], shape: Sequence[int], known: Known
) -> None:
    """What differs between layers, is told, or is the longest dimension that is left."""
    free = [at for at, letter in enumerate(axes.groups) if not letter]
    if not free:
        return
    differ = [at for at in free if len({each[at] for each in shapes}) > 1]
    told = [at for at in free if shape[at] in known.tokens]
    if len(differ) == 1 or len(told) == 1:
        at = (differ if len(differ) == 1 else told)[0]
    else:
        at = max(free, key=lambda each: (shape[each], each))
        rivals = ", ".join(str(shape[each]) for each in free if each != at and shape[each] > 1)
        if shape[at] <= MANY and rivals:
            axes.doubts.append(
                f"{shape[at]} is taken for tokens (T), because it is longer than {rivals}; "
                "if it counts something else, swap the letters"
            )
    axes.groups[at] = "T"


def _is_wide(size: int, known: Known) -> bool:
    """Whether a dimension holds the channels of more than one head, it seems."""
    if known.channels is not None:
        return size > known.channels
    return size > MOST or size not in HEAD_SIZES


def _rest(sizes: list[int], *, wide: bool, layer: bool, head: bool) -> str | None:
    """Letters of what is left, in order; None where there are too many dimensions."""
    if head:
        wanted = {0: "", 1: "B" if layer else "L", 2: "BL" if sizes[:1] == [1] else "LB"}
    elif layer:
        wanted = {0: "", 1: "B" if wide and sizes == [1] else "H", 2: "BH"}
    else:
        batch_first = len(sizes) > 1 and sizes[0] <= sizes[1]
        pair = "BL" if batch_first else "LB"
        flat = wide and 1 in sizes
        wanted = {0: "", 1: "L" if wide else "H", 2: pair if flat else "LH", 3: f"{pair}H"}
    return wanted.get(len(sizes))


def _halve(axes: Axes, shape: Sequence[int]) -> None:
    """No dimension of length 2: the last one has keys in its first half, values behind them."""
    at = _place(axes, "D")
    axes.groups[at] = "RD"
    axes.doubts.append(
        f"no dimension has length 2: keys are taken for the first half of the last one, "
        f"{shape[at]}. Tools pack this in several ways, which the file does not tell"
    )


def _split_channels(axes: Axes, shape: Sequence[int], known: Known) -> None:
    """Heads and channels in one dimension, or one head."""
    at = _place(axes, "D")
    size = shape[at]
    if known.heads is not None and size % known.heads == 0:
        heads = known.heads
    elif not _is_wide(size, known):
        heads = 1
    else:
        sizes = (known.channels,) if known.channels else HEAD_SIZES
        heads = next((size // each for each in sizes if size % each == 0), 1)
        if heads > 1:
            taken = f"{size} channels are taken for {heads} heads of {size // heads}"
            axes.doubts.append(f"{taken}, which the file does not tell: H of lengths")
    if heads > 1:
        axes.groups[at] = "HD"
        axes.lengths["H"] = heads


def _tell_doubts(axes: Axes, shape: Sequence[int], *, layer: bool) -> None:
    lengths: Mapping[str, int] = dict(zip(axes.groups, shape, strict=True))
    if not layer and "L" not in axes.groups:
        axes.doubts.append("no number in names and no dimension is for layers: one is assumed")
    if "TBHD" in "".join(axes.groups) and lengths["B"] > 1:
        axes.groups[axes.groups.index("B")] = "t"
        axes.doubts.append(f"tokens seem to lie in {lengths['T']} blocks of {lengths['B']}")
    elif lengths.get("B", 1) > 1:
        axes.doubts.append(f"{lengths['B']} is taken for the batch (B)")

"""groups: the elements of a page that share a scale.

    axis "token"      up to `size` neighbouring channels of one token    per group (H, T, n)
    axis "channel"    up to `size` neighbouring tokens of one channel    per group (H, n, D)

The last group of a token or channel is what is left, and may be smaller. Everything that goes
from elements to groups or back is one or two calls on a view with the group as an axis of its
own; a second one only where there is such a rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.scratch import Scratch
from kvq_cli.record import record

Axis: TypeAlias = Literal["token", "channel"]
WHOLE: Final = 1 << 40  # one group a token or channel, however long
_SHORT: Final = 128  # 16-bit elements of a token up to which windows beat a reduction
_HALVINGS: Final = 3  # then too little is left to be worth the calls


@record
class Groups:
    """How a page is divided; pages that look along tokens need whole heads."""

    axis: Axis
    size: int = WHOLE

    def shape(self, page: tuple[int, ...]) -> tuple[int, int, int]:
        """The shape of what there is one of per group."""
        heads, tokens, channels = page
        if self.axis == "token":
            return heads, tokens, -(-channels // self.size)
        return heads, -(-tokens // self.size), channels

    def pairs(
        self, elements: NDArray[Any], per_group: NDArray[Any]
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Views of elements and of what their groups have, that broadcast in four axes."""
        heads, tokens, channels = elements.shape
        along = channels if self.axis == "token" else tokens
        size = min(self.size, along)
        full = along // size
        for start, count, length in ((0, full, size), (full * size, 1, along - full * size)):
            if not length:
                continue
            stop, groups = start + count * length, slice(start // size, start // size + count)
            if self.axis == "token":
                shape = (heads, tokens, count, length)
                yield elements[..., start:stop].reshape(shape), per_group[..., groups, None]
            else:
                shape = (heads, count, length, channels)
                yield elements[:, start:stop].reshape(shape), per_group[:, groups, None]

    def apply(self, ufunc: np.ufunc, elements: NDArray[Any], per_group: NDArray[Any]) -> None:
        """elements = ufunc(elements, what their group has)."""
        for view, mine in self.pairs(elements, per_group):
            ufunc(view, mine, out=view)

    def extreme(self, ufunc: np.ufunc, elements: NDArray[Any], scratch: Scratch) -> NDArray[Any]:
        """np.maximum or np.minimum over each group of integers."""
        found = np.empty(self.shape(elements.shape), elements.dtype)
        over = _over_channels if self.axis == "token" else _over_tokens
        for view, place in self.pairs(elements, found):
            over(ufunc, view, place, scratch)
        return found


def _over_tokens(ufunc: np.ufunc, view: NDArray[Any], out: NDArray[Any], scratch: Scratch) -> None:
    """First halves against last halves: whole vectors, where a reduction enters every row.

    Of an odd length the middle is in both halves.
    """
    for turn in range(_HALVINGS):
        length = view.shape[2]
        if length < 2:
            break
        keep = -(-length // 2)
        first, last = view[:, :, :keep], view[:, :, length - keep :]
        view = scratch.take(f"groups.{turn}", first.shape, view.dtype)
        ufunc(first, last, out=view)
    ufunc.reduce(view, axis=2, out=out, keepdims=True)


def _over_channels(
    ufunc: np.ufunc, view: NDArray[Any], out: NDArray[Any], scratch: Scratch
) -> None:
    length = view.shape[3]
    flat = np.ascontiguousarray(view).reshape(-1)
    if view.dtype.itemsize == 2 and length <= _SHORT:
        found = _slid(ufunc, flat, length, scratch)
    else:
        found = ufunc.reduceat(flat, _starts(flat.size, length))
    np.copyto(out, found.reshape(out.shape))


@lru_cache(maxsize=64)
def _starts(size: int, length: int) -> NDArray[np.intp]:
    return np.arange(0, size, length)


def _slid(ufunc: np.ufunc, flat: NDArray[Any], length: int, scratch: Scratch) -> NDArray[Any]:
    """Over windows of 1, 2, 4, … elements at every position: plain vectors again.

    Each window that begins with a group is that group.
    """
    spare = [scratch.take(f"groups.{at}", flat.shape, flat.dtype) for at in (0, 1)]
    now, width = flat, 1
    while width < length:
        shift = min(width, length - width)
        wider = spare[0][: now.size - shift]
        ufunc(now[:-shift], now[shift:], out=wider)
        now, width = wider, width + shift
        spare.reverse()
    return now[::length]

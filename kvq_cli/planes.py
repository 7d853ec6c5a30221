"""planes: named arrays of an encoded page, and the layout that fixes their sizes.

Spec: formats/container.md, section "Planes".

A codec states its layout from parameters and page spec alone. From it follow every packed
length in a container, the bytes that are scales and the bytes that are codes, and how a
slice of heads and tokens is cut out of an encoded page: each plane names its axes, "H" for
kv heads, "T" for tokens, "G" for groups of tokens, any other letter for what a slice leaves
whole. A page with an axis "G" is cut along heads alone, one without an axis "H" not at all.

A plane may be open: its one axis is then at most so long, and its packed length says how long.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.digest import plain, text
from kvq_cli.errors import CodecError
from kvq_cli.record import record
from kvq_cli.words import TableSpec


@record
class Plane:
    """One array: little-endian dtype, shape, and a letter for each axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: str
    open: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes; of an open plane at most so many."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Layout: TypeAlias = tuple[Plane, ...]
Planes: TypeAlias = Mapping[str, NDArray[Any]]


def packed_sizes(layout: Layout) -> tuple[int, ...]:
    """Of an open plane the largest."""
    return tuple(plane.nbytes for plane in layout)


def least_size(layout: Layout) -> int:
    """Bytes that all planes take where open ones are empty."""
    return sum(plane.nbytes for plane in layout if not plane.open)


def allowed_sizes(layout: Layout) -> tuple[range, ...]:
    """The packed lengths that each plane may have."""
    return tuple(
        range(0 if plane.open else plane.nbytes, plane.nbytes + 1, np.dtype(plane.dtype).itemsize)
        for plane in layout
    )


def pack(layout: Layout, planes: Planes) -> list[memoryview]:
    """The planes' bytes in layout order, without a copy where the arrays are contiguous."""
    packed = []
    for plane in layout:
        array = planes[plane.name]
        fits = array.shape == plane.shape or (plane.open and array.shape <= plane.shape)
        if not fits or array.dtype != np.dtype(plane.dtype):
            raise AssertionError(f"plane {plane.name}: {array.dtype} {array.shape}, not {plane}")
        packed.append(raw_bytes(np.ascontiguousarray(array)))
    return packed


def raw_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array, not copied."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """The array, which nobody may write to any more."""
    array.flags.writeable = False
    return array


def table_spec(array: NDArray[Any]) -> TableSpec:
    """A C-contiguous array as a table."""
    return TableSpec(array.dtype.str, array.shape, text(plain(raw_bytes(array))))


def unpack(layout: Layout, packed: Sequence[memoryview]) -> dict[str, NDArray[Any]]:
    """The planes as read-only arrays over the packed bytes."""
    if len(packed) != len(layout):
        raise CodecError("E502", f"{len(packed)} planes, the codec's layout has {len(layout)}")
    planes = {}
    for plane, data, allowed in zip(layout, packed, allowed_sizes(layout), strict=True):
        if len(data) not in allowed:
            raise CodecError(
                "E502", f"plane {plane.name}: {len(data)} bytes, the layout has {plane.nbytes}"
            )
        shape = (-1,) if plane.open else plane.shape
        planes[plane.name] = read_only(np.frombuffer(data, dtype=plane.dtype).reshape(shape))
    return planes


def cuts_heads(layout: Layout) -> bool:
    """Whether heads of a page can be decoded without the others."""
    return any("H" in plane.axes for plane in layout)


def cuts_tokens(layout: Layout) -> bool:
    """Whether tokens of a page can be decoded without their neighbours."""
    return cuts_heads(layout) and not any("G" in plane.axes for plane in layout)


def cut(
    layout: Layout, planes: Planes, heads: slice | NDArray[Any], tokens: slice | NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """The planes of a slice of the page; axes of length 1 are shared by the whole page."""
    pieces = {}
    for plane in layout:
        array = planes[plane.name]
        for at, (letter, length) in enumerate(zip(plane.axes, plane.shape, strict=True)):
            chosen = {"H": heads, "T": tokens}.get(letter)
            if chosen is not None and length > 0:
                array = array[(slice(None),) * at + (chosen,)]
        pieces[plane.name] = array
    return pieces

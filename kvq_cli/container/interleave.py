"""interleave: the bytes of a tensor's elements, those of one place together.

Spec: formats/container.md, section "Records".

    plane b of elements of w bytes  =  bytes b, b + w, b + 2w, ...

Exponents and signs lie together then, apart from mantissas, which hardly compress.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvq_cli.digest import Buffer
from kvq_cli.words import ELEMENT_BITS


def width(dtype: str) -> int:
    """Bytes of an element; 1 where elements are smaller."""
    return max(1, ELEMENT_BITS[dtype] // 8)


def apart(data: bytes | bytearray, count: int) -> Sequence[Buffer]:
    """A plane for each byte of an element."""
    return [data[at::count] for at in range(count)] if count > 1 else [data]


def together(planes: Sequence[memoryview]) -> memoryview:
    """The inverse of apart."""
    if len(planes) == 1:
        return planes[0]
    data = bytearray(sum(map(len, planes)))
    for at, plane in enumerate(planes):
        data[at :: len(planes)] = plane
    return memoryview(data)

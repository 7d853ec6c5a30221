"""layered: where the rows of a page lie, layer by layer.

Spec: formats/container.md, section "Records".

A page of several layers has the heads of its head set in the first layer, then those in the
next, and so on. Codecs see so many heads; here they become rows of slabs again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

from kvq_cli.capture.slab import Block, Slab
from kvq_cli.words import PageKey, Role

Slabs: TypeAlias = Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer


def slabs_of(slabs: Slabs, key: PageKey) -> tuple[Slab, ...]:
    """Those of the layers of a page; KeyError where one is not there."""
    return tuple(slabs[key.role, key.batch, layer] for layer in key.every_layer)


def page_blocks(
    slabs: Sequence[Slab], heads: Sequence[int], key: PageKey, rows: NDArray[Any]
) -> Iterator[Block]:
    """The rows of a page, (layers * H, T, D) and C-contiguous, in the slabs of its layers."""
    apart = rows.reshape(len(slabs), len(heads), *rows.shape[1:])
    for slab, part in zip(slabs, apart, strict=True):
        yield Block(slab, heads, key.start, key.stop, part)


def page_rows(key: PageKey, heads: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Layer and kv head of each head of a page."""
    return ((layer, head) for layer in key.every_layer for head in heads)


def shares(size: int, layers: int) -> list[int]:
    """Bytes of a page, divided among its layers: equal, the first ones have the remainder."""
    each, rest = divmod(size, layers)
    return [each + (at < rest) for at in range(layers)]

"""trial: the pages of one layer as they would be decoded, before anything is written.

A page comes in levels: 0 is the codec that its rule names, the last is raw, and between them
lie the codecs of the budget's ladder. Each kv head of a page has a level of its own, where
codecs treat each head for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.slab import Block, read_blocks, read_rows
from kvq_cli.codecs import Codec
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import Page
from kvq_cli.quality import Read, Rope, Side, Sides, widened
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.steps.encode import settled_codec
from kvq_cli.steps.plan import PagePlan, level_codec
from kvq_cli.steps.unsplit import Unsplit
from kvq_cli.words import PageSpec, Role

FEW: Final = 1 << 20  # elements
KEPT: Final = 1 << 26  # bytes of decoded pages; what is beyond is decoded again when it is read

Levels = dict[Role, NDArray[np.int64]]  # of each page and kv head
Heads = tuple[int, ...]
Asked = Mapping[int, NDArray[np.int64]]  # levels of some heads, by the place of a page
NOTHING: Final[Asked] = MappingProxyType({})


class Trial:
    """One layer of one batch entry."""

    def __init__(
        self,
        capture: Capture,
        place: tuple[int, LayerShape],
        pages: Mapping[Role, list[PagePlan]],
        ladders: Mapping[Role, Sequence[Codec]],
        scratch: Scratch,
        rope: tuple[Rope, int] | None = None,
        unsplit: Unsplit | None = None,
    ) -> None:
        """`rope` turns keys, whose first token has that position.

        Tokens before those of the pages belong to containers that these continue.
        """
        self._capture, self._scratch, self._rope = capture, scratch, rope
        self._ladders, self._unsplit = ladders, unsplit
        self.top = 1 + max(map(len, ladders.values()))  # the level that is raw
        self._batch, self._layer = place
        self.pages = pages
        self._lossy = {role: self.lossy(role) for role in pages}
        keys = {role: [page.record.key for page in each] for role, each in pages.items()}
        self._starts = {role: np.array([key.start for key in each]) for role, each in keys.items()}
        self._stops = {role: np.array([key.stop for key in each]) for role, each in keys.items()}
        self.forget()

    def forget(self) -> None:
        """Makes room for decoded pages of other heads."""
        self._kept: dict[tuple[Role, int, int, Heads], NDArray[Any]] = {}
        self._held = 0

    @property
    def tokens(self) -> int:
        return self._layer.tokens

    def cuts(self) -> list[tuple[int, int]]:
        """The token ranges between all edges of pages, and before them as long ones."""
        keys = [page.record.key for pages in self.pages.values() for page in pages]
        edges = {edge for key in keys for edge in (key.start, key.stop)}
        most = max(key.stop - key.start for key in keys)
        return list(pairwise(sorted(edges | {*range(0, min(edges), most)})))

    def blocks(self) -> list[tuple[int, int]]:
        """The same, but all tokens in one where they are few: that takes half the time."""
        return [(0, self._layer.tokens)] if few(self._layer) else self.cuts()

    def lossy(self, role: Role) -> NDArray[np.bool_]:
        """Which heads of which pages lose something at level 0."""
        found = np.zeros((len(self.pages[role]), self._layer.heads), bool)
        for at, page in enumerate(self.pages[role]):
            found[at, list(page.heads)] = not self._codec(page, 0).lossless
        return found

    def reader(self, levels: Levels, heads: NDArray[np.int64]) -> Read:
        """Rows of some heads as they are and as they would come back; see LayerReader."""
        # What loses nothing comes back as it was.
        asked = {
            role: np.where(self._lossy[role], levels[role], self.top)[:, heads]
            for role in self.pages
        }
        return partial(self._read, asked, tuple(heads.tolist()))

    def _read(self, levels: Levels, heads: Heads, role: Role, start: int, stop: int) -> Sides:
        inside = np.flatnonzero((self._starts[role] < stop) & (self._stops[role] > start))
        asked = levels[role][inside]
        wide = partial(self._wide, role, heads, start, stop)
        before = Side(heads, wide)
        if (asked == self.top).all():
            return before, before
        pages = dict(zip(inside.tolist(), asked, strict=True))
        return before, Side((heads, *asked.ravel().tolist()), partial(wide, pages))

    def sides(self, role: Role, at: int, level: int) -> tuple[Floats, Floats]:
        """One page, of its own heads, without rotary positions."""
        page = self.pages[role][at]
        sides = (self._decoded(role, at, each, page.heads) for each in (self.top, level))
        before, after = (widened(bits, page.slab.dtype) for bits in sides)
        return before, after

    def _wide(
        self, role: Role, heads: Heads, start: int, stop: int, pages: Asked = NOTHING
    ) -> Floats:
        """Rows of these heads, some of them as they come back of pages."""
        slab = self.pages[role][0].slab
        bits = np.empty((len(heads), stop - start, slab.channels), slab.dtype.bits)
        read_rows(self._capture.source, slab, heads, start, stop, bits)
        for at, asked in pages.items():
            first = max(start, int(self._starts[role][at]))
            last = min(stop, int(self._stops[role][at]))
            inside = slice(first - self._starts[role][at], last - self._starts[role][at])
            for level in sorted(set(asked.tolist()) - {self.top}):
                places = np.flatnonzero(asked == level)
                alike = tuple(heads[place] for place in places)
                rows = self._decoded(role, at, level, alike)[:, inside]
                bits[places, first - start : last - start] = rows
        wide = widened(bits, slab.dtype)
        if role is not Role.KEY or self._rope is None:
            return wide
        rope, position = self._rope
        return rope.rotate(wide, np.arange(start, stop) + position)

    def _decoded(self, role: Role, at: int, level: int, heads: Heads) -> NDArray[Any]:
        found = self._kept.get((role, at, level, heads))
        if found is not None:
            return found
        places = self._stack(role, at, level, heads)
        pages = [self.pages[role][place] for place in places]
        made = self._made(pages, level, heads)
        apart = made.reshape(len(pages), len(heads), *made.shape[1:])
        for place, rows in zip(places, apart, strict=True):
            if self._held + rows.nbytes <= KEPT:
                self._kept[role, place, level, heads] = rows
                self._held += rows.nbytes
        return made[: len(heads)]

    def _stack(self, role: Role, at: int, level: int, heads: Heads) -> list[int]:
        """The page and, where few heads are asked, those that follow: they share their calls."""
        pages = self.pages[role]
        first, codec = pages[at], self._codec(pages[at], level)
        size = first.nbytes // len(first.heads) * len(heads)
        places = [at]
        for place in range(at + 1, len(pages)):
            page = pages[place]
            full = self._held + (len(places) + 1) * size > KEPT
            if full or len(heads) * (len(places) + 1) > self._layer.heads:
                break
            if page.heads == first.heads:
                if _tokens(page) != _tokens(first) or self._codec(page, level) != codec:
                    break
                places.append(place)
        return places

    def _made(self, pages: Sequence[PagePlan], level: int, heads: Heads) -> NDArray[Any]:
        """What comes back of these heads of pages that are alike, one behind the other.

        Heads that the codec cannot hold come back as they were.
        """
        count, slab, tokens = len(heads), pages[0].slab, _tokens(pages[0])
        bits = np.empty((len(pages) * count, tokens, slab.channels), slab.dtype.bits)
        keys = [page.record.key for page in pages]
        blocks = (
            Block(slab, heads, key.start, key.stop, bits[at * count : (at + 1) * count])
            for at, key in enumerate(keys)
        )
        read_blocks(self._capture.source, blocks)
        codec = self._codec(pages[0], level)
        if codec.lossless:
            return bits
        if self._unsplit is not None and self._unsplit.has(pages[0], codec):
            rows = [self._unsplit.rows(page, codec, heads) for page in pages]
            return np.concatenate(rows)
        try:
            return self._through(codec, Page(PageSpec(*bits.shape, slab.dtype), bits))
        except CodecError:
            alone = PageSpec(1, *bits.shape[1:], slab.dtype)
            single = (Page(alone, bits[head : head + 1]) for head in range(len(bits)))
            return np.concatenate([self._or_itself(codec, head) for head in single])

    def _or_itself(self, codec: Codec, page: Page) -> NDArray[Any]:
        try:
            return self._through(codec, page)
        except CodecError:
            return page.bits

    def _through(self, codec: Codec, page: Page) -> NDArray[Any]:
        planes = {name: plane.copy() for name, plane in codec.encode(page, self._scratch).items()}
        back = Page(page.spec, np.empty_like(page.bits))
        codec.decode(planes, page.spec, back, self._scratch)
        return back.bits

    def _codec(self, page: PagePlan, level: int) -> Codec:
        ladder = self._ladders[page.record.key.role]
        return settled_codec(page.whole or page, level_codec(page.codec, ladder, level))[0]


def _tokens(page: PagePlan) -> int:
    return page.record.key.stop - page.record.key.start


def few(layer: LayerShape) -> bool:
    """Whether all keys, or all values, may be in memory as float64 at once."""
    channels = max(shape[0] for shape in (layer.key, layer.value) if shape)
    return layer.heads * layer.tokens * channels <= FEW


def by_layer(pages: Iterator[PagePlan]) -> dict[tuple[int, int], dict[Role, list[PagePlan]]]:
    """Planned pages of single layers by batch entry and layer, then role."""
    found: dict[tuple[int, int], dict[Role, list[PagePlan]]] = {}
    for page in pages:
        key = page.record.key
        found.setdefault((key.batch, key.layer), {}).setdefault(key.role, []).append(page)
    return found

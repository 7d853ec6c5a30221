"""trial: the pages of one layer as they would be decoded, before anything is written.

A page comes in levels: 0 is the codec that its rule names, the last is raw, and between them
lie the codecs of the budget's ladder. Each kv head of a page has a level of its own, since
codecs treat each head for itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.slab import read_rows
from kvq_cli.codecs import Codec
from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import Page
from kvq_cli.quality import Rope, widened
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.steps.encode import settled_codec
from kvq_cli.steps.plan import PagePlan, level_codec
from kvq_cli.words import PageSpec, Role

FEW: Final = 1 << 20  # elements
KEPT: Final = 1 << 26  # bytes of decoded pages; what is beyond is decoded again when it is read

Levels = dict[Role, NDArray[np.int64]]  # of each page and kv head


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
    ) -> None:
        """`rope` turns keys, whose first token has that position."""
        self._capture, self._scratch, self._rope = capture, scratch, rope
        self._ladders = ladders
        self.top = 1 + max(map(len, ladders.values()))  # the level that is raw
        self._batch, self._layer = place
        self.pages = pages
        self._kept: dict[tuple[Role, int, int], NDArray[Any]] = {}
        self._held = 0

    def cuts(self) -> list[tuple[int, int]]:
        """The token ranges between all edges of pages."""
        keys = (page.record.key for pages in self.pages.values() for page in pages)
        edges = sorted({edge for key in keys for edge in (key.start, key.stop)})
        return list(pairwise(edges))

    def blocks(self) -> list[tuple[int, int]]:
        """The same, but all tokens in one where they are few: that takes half the time."""
        return [(0, self._layer.tokens)] if few(self._layer) else self.cuts()

    def lossy(self, role: Role) -> NDArray[np.bool_]:
        """Which heads of which pages lose something at level 0."""
        found = np.zeros((len(self.pages[role]), self._layer.heads), bool)
        for at, page in enumerate(self.pages[role]):
            found[at, list(page.heads)] = not self._codec(page, 0).lossless
        return found

    def read(self, levels: Levels, role: Role, start: int, stop: int) -> tuple[Floats, Floats]:
        """Rows of a token range as they are and as they would come back; see LayerReader."""
        before, after = self._bits(levels, role, start, stop)
        dtype = self.pages[role][0].slab.dtype
        wide = [widened(bits, dtype) for bits in (before, after)]
        if role is Role.KEY and self._rope is not None:
            rope, first = self._rope
            positions = np.arange(start, stop) + first
            wide = [rope.rotate(rows, positions) for rows in wide]
        return wide[0], wide[1]

    def sides(self, role: Role, at: int, level: int) -> tuple[Floats, Floats]:
        """One page, of its own heads, without rotary positions."""
        page = self.pages[role][at]
        sides = (self._decoded(role, at, each) for each in (self.top, level))
        before, after = (widened(bits, page.slab.dtype) for bits in sides)
        return before, after

    def _bits(
        self, levels: Levels, role: Role, start: int, stop: int
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        slab = self.pages[role][0].slab
        shape = (slab.heads, stop - start, slab.channels)
        before = np.empty(shape, slab.dtype.bits)
        read_rows(self._capture.source, slab, range(slab.heads), start, stop, before)
        after = before.copy()
        for at, page in enumerate(self.pages[role]):
            first, last = max(start, page.record.key.start), min(stop, page.record.key.stop)
            if first >= last:
                continue
            inside = slice(first - page.record.key.start, last - page.record.key.start)
            asked = levels[role][at, list(page.heads)]
            for level in sorted(set(asked.tolist()) - {self.top}):
                rows = self._decoded(role, at, level)[:, inside]
                places = np.flatnonzero(asked == level)
                after[np.asarray(page.heads)[places], first - start : last - start] = rows[places]
        return before, after

    def _decoded(self, role: Role, at: int, level: int) -> NDArray[Any]:
        found = self._kept.get((role, at, level))
        if found is None:
            found = self._made(self.pages[role][at], level)
            if self._held + found.nbytes <= KEPT:
                self._kept[role, at, level] = found
                self._held += found.nbytes
        return found

    def _made(self, page: PagePlan, level: int) -> NDArray[Any]:
        """What comes back of a page; heads that its codec cannot hold come back as they were."""
        key, slab = page.record.key, page.slab
        bits = np.empty((len(page.heads), key.stop - key.start, slab.channels), slab.dtype.bits)
        read_rows(self._capture.source, slab, page.heads, key.start, key.stop, bits)
        codec = self._codec(page, level)
        if codec.lossless:
            return bits
        spec = PageSpec(*bits.shape, slab.dtype)
        try:
            return self._through(codec, Page(spec, bits))
        except CodecError:
            alone = PageSpec(1, *bits.shape[1:], slab.dtype)
            heads = (Page(alone, bits[head : head + 1]) for head in range(len(bits)))
            return np.concatenate([self._or_itself(codec, head) for head in heads])

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
        return settled_codec(page, level_codec(page.codec, ladder, level))[0]


def few(layer: LayerShape) -> bool:
    """Whether all keys, or all values, may be in memory as float64 at once."""
    channels = max(shape[0] for shape in (layer.key, layer.value) if shape)
    return layer.heads * layer.tokens * channels <= FEW


def by_layer(pages: Iterator[PagePlan]) -> dict[tuple[int, int], dict[Role, list[PagePlan]]]:
    """Planned pages by batch entry and layer, then role."""
    found: dict[tuple[int, int], dict[Role, list[PagePlan]]] = {}
    for page in pages:
        key = page.record.key
        found.setdefault((key.batch, key.layer), {}).setdefault(key.role, []).append(page)
    return found

"""encode: a page of the capture becomes coded pages of the container.

Usually one becomes one. A page that its codec cannot hold becomes one page a head: heads
whose elements are all finite are encoded, the others stay raw and say why. Where the codec
needs all heads of a page, all of it stays raw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, groupby
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.header import shown
from kvq_cli.capture.slab import Block, read_blocks
from kvq_cli.codecs import Codec, Larger, NonFinite, page_of
from kvq_cli.container import chunk
from kvq_cli.container.coded import Coded, code
from kvq_cli.container.interleave import apart, width
from kvq_cli.container.records import PageRecord, pack_piece_record, pack_source_record, pieces
from kvq_cli.digest import plain
from kvq_cli.errors import CodecError
from kvq_cli.page import Page
from kvq_cli.planes import Layout, cuts_heads, pack, packed_sizes, raw_bytes
from kvq_cli.profile import Fallback
from kvq_cli.profile.policy import RAW
from kvq_cli.record import record
from kvq_cli.steps.layered import page_blocks
from kvq_cli.steps.places import placed
from kvq_cli.steps.plan import PagePlan, Plan, stored_by
from kvq_cli.steps.work import Bench, in_batches
from kvq_cli.words import PageSpec, Reason

BATCH: Final = 1 << 22  # source bytes in one job; smaller jobs cost more than they do


@record
class EncodedPage:
    """One page, ready to be appended."""

    coded: Coded
    record: PageRecord
    source_digest: bytes
    source_bytes: int


class Encoder:
    """Turns planned pages into encoded ones; safe to call from many threads."""

    def __init__(self, plan: Plan) -> None:
        self._source, self._files = plan.capture.source, plan.capture.files
        self._manifest = plan.manifest
        self._codecs = {codec: number for number, codec in enumerate(plan.codecs)}
        self._head_sets = {heads: at for at, heads in enumerate(plan.manifest.head_sets)}
        storage = plan.manifest
        level = storage.level if storage.entropy == "zstd" else None
        self._bench = Bench(level, plan.tables)
        self._tables = [plan.tables[table.digest] for table in plan.manifest.tables]
        self._held = list(plan.manifest.held)
        self._carried = list(plan.manifest.carried)
        self._largest = plan.largest_page

    @property
    def room(self) -> int:
        """Bytes that hold what `encode_batch` gives back.

        No page is stored larger than it was, but by its framing, unless its profile insists.
        """
        return 2 * BATCH + self._largest

    def front(self) -> Iterator[Coded]:
        """HEAD for every file, TABL for every table, TENS for every tensor that has no pages."""
        source, coder = self._source, self._bench.coder
        for number, file in enumerate(self._files.files):
            yield code(chunk.HEAD, pack_source_record(number), [file.head], coder)
        tables = [raw_bytes(table) for table in self._tables]
        for number, at, size in pieces(self._held):
            piece = tables[number][at : at + size]
            yield code(chunk.TABL, pack_piece_record(number, at), [piece], coder)
        for number, at, size in pieces(self._carried):
            tensor, data = self._files.tensors[number], bytearray(size)
            source.read_into(tensor.start + at, data)
            planes = apart(data, width(tensor.dtype))
            yield code(chunk.TENS, pack_piece_record(number, at), planes, coder)

    def encode_batch(self, batch: Sequence[PagePlan]) -> list[EncodedPage]:
        """All pages of a batch; neighbours of one kind go through their codec together.

        Heads of a page that was refused may have their place behind the next page.
        """
        groups = (list(group) for _, group in groupby(batch, key=_kind))
        pages = [page for group in groups for page in self._encode_group(group)]
        return sorted(pages, key=lambda page: page.record.key)

    def encode(self, planned: PagePlan) -> list[EncodedPage]:
        """One page, or one a head where the codec cannot hold all of it."""
        codec, reason = settled_codec(planned, planned.codec)
        page = self._placed(planned, codec)
        try:
            return [self._encoded(page, planned.record, codec, reason)]
        except Larger:
            return [self._encoded(page, planned.record, RAW, Reason.LARGER)]
        except CodecError as refusal:
            if planned.profile.fallback is Fallback.FAIL_CLOSED:
                raise _named(refusal, planned) from refusal
            if not cuts_heads(codec.layout(page.spec)):
                non_finite = isinstance(refusal, NonFinite)
                reason = Reason.NON_FINITE if non_finite else Reason.UNSUPPORTED
                return [self._encoded(page, planned.record, RAW, reason)]
            return [self._single(page, at, planned, refusal) for at in range(len(planned.heads))]

    def tried(self, planned: PagePlan, *, decoded: bool) -> tuple[int, tuple[Page, Page] | None]:
        """Packed bytes that a page would take, and it before and after if that is asked."""
        pages = self.encode(planned)
        packed = sum(each.coded.packed for each in pages)
        if not decoded or any(self._codecs[RAW] == each.record.codec for each in pages):
            return packed, None
        return packed, self.returned(planned, planned.codec)

    def returned(self, planned: PagePlan, codec: Codec) -> tuple[Page, Page]:
        """A page before and after a codec: the same where that cannot hold it; both in scratch."""
        before = self._placed(planned, codec)
        try:
            planes = codec.encode(before, self._bench.scratch)
        except CodecError:
            return before, before
        layout = codec.layout(before.spec)
        if _grown(layout, pack(layout, planes), before.spec):
            return before, before
        after = page_of(before.spec)
        copied = {name: plane.copy() for name, plane in planes.items()}
        codec.decode(copied, before.spec, after, self._bench.scratch)
        return before, after

    def _placed(self, planned: PagePlan, codec: Codec) -> Page:
        """A page as its codec wants to have it."""
        page = self._read([planned])
        return Page(placed(page.spec, planned.record.key, codec, self._manifest), page.bits)

    def _encode_group(self, group: Sequence[PagePlan]) -> list[EncodedPage]:
        """Pages of one kind, stacked along the heads, which codecs treat each for itself."""
        spec = group[0].spec
        codec, reason = settled_codec(group[0], group[0].codec)
        layout = codec.layout(spec)
        sizes = packed_sizes(layout)
        stacked = all(plane.axes.startswith("H") for plane in layout)
        if len(group) == 1 or not stacked:
            return [page for planned in group for page in self.encode(planned)]
        page = self._read(group)
        try:
            planes = codec.encode(page, self._bench.scratch)
        except CodecError:
            return [page for planned in group for page in self.encode(planned)]
        tall, bits = pack(codec.layout(page.spec), planes), raw_bytes(page.bits)
        pages = []
        for at, planned in enumerate(group):
            record = PageRecord(planned.record.key, self._codecs[codec], reason)
            (source,) = _pieces([bits], [spec.nbytes], at)
            pages.append(self._framed(record, _pieces(tall, sizes, at), source))
        return pages

    def _read(self, group: Sequence[PagePlan]) -> Page:
        """The pages of a group, one behind the other, alive in scratch."""
        spec = group[0].spec
        bits = self._bench.scratch.take(
            "page", (len(group) * spec.heads, spec.tokens, spec.channels), spec.dtype.bits
        )
        places = bits.reshape(len(group), *spec.shape)
        read_blocks(self._source, chain.from_iterable(map(_blocks, group, places)))
        return Page(replace(spec, heads=len(bits)), bits)

    def _single(self, page: Page, at: int, planned: PagePlan, refusal: CodecError) -> EncodedPage:
        """One head of a page that was refused, of all its layers: encoded if it can be, or raw."""
        # The page lives in scratch that encoding does not touch.
        mine = slice(at, None, len(planned.heads))
        bits = np.ascontiguousarray(page.bits[mine])
        single = Page(replace(page.spec, heads=len(bits)), bits)
        key = replace(planned.record.key, head_set=self._head_sets[planned.heads[at],])
        record = replace(planned.record, key=key)
        if isinstance(refusal, NonFinite) and any(refusal.heads[mine]):
            return self._encoded(single, record, RAW, Reason.NON_FINITE)
        try:
            return self._encoded(single, record, planned.codec, planned.record.reason)
        except CodecError:
            return self._encoded(single, record, RAW, Reason.UNSUPPORTED)

    def _encoded(self, page: Page, record: PageRecord, codec: Codec, reason: Reason) -> EncodedPage:
        layout = codec.layout(page.spec)
        packed = pack(layout, codec.encode(page, self._bench.scratch))
        if not codec.lossless and _grown(layout, packed, page.spec):
            return self._encoded(page, record, RAW, Reason.LARGER)
        record = PageRecord(record.key, self._codecs[codec], reason)
        return self._framed(record, packed, raw_bytes(page.bits))

    def _framed(
        self, record: PageRecord, packed: Sequence[memoryview], bits: memoryview
    ) -> EncodedPage:
        coded = code(chunk.PAGE, record.pack(), packed, self._bench.coder)
        return EncodedPage(coded, record, plain(bits), len(bits))


def _grown(layout: Layout, packed: Sequence[memoryview], spec: PageSpec) -> bool:
    """Whether a page of open planes takes no less than its source."""
    return any(plane.open for plane in layout) and sum(map(len, packed)) >= spec.nbytes


def settled_codec(planned: PagePlan, codec: Codec) -> tuple[Codec, Reason]:
    """What becomes of a page that shall have this codec."""
    reason, fixed_rate = planned.record.reason, planned.profile.fixed_rate
    return stored_by(codec, reason, planned.spec, fixed_rate=fixed_rate)


def batches(pages: Iterable[PagePlan]) -> Iterator[list[PagePlan]]:
    """Neighbouring pages, about BATCH bytes a job; those of one first token stay together."""
    together = (list(group) for _, group in groupby(pages, key=_place))
    for batch in in_batches(together, lambda group: sum(page.nbytes for page in group), BATCH):
        yield [page for group in batch for page in group]


def _blocks(planned: PagePlan, bits: NDArray[Any]) -> Iterator[Block]:
    return page_blocks(planned.slabs, planned.heads, planned.record.key, bits)


def _pieces(tall: Sequence[memoryview], sizes: Sequence[int], at: int) -> list[memoryview]:
    """What of each plane of a tall page is that of one of its pages."""
    return [plane[at * size : (at + 1) * size] for plane, size in zip(tall, sizes, strict=True)]


def _place(planned: PagePlan) -> tuple[int, ...]:
    """What pages share that differ in their heads alone."""
    key = planned.record.key
    return (key.role, key.batch, key.layer, key.start)


def _kind(planned: PagePlan) -> tuple[object, ...]:
    """What pages must share to be encoded together."""
    return (planned.spec, planned.codec, planned.record.reason, planned.profile.name)


def _named(refusal: CodecError, planned: PagePlan) -> CodecError:
    """The refusal, in terms of the capture."""
    key, slab, layers = planned.record.key, planned.slab, planned.record.key.layer_words
    heads: object = list(planned.heads)
    tokens = f"{key.start}:{key.stop}"
    if isinstance(refusal, NonFinite):
        head, token, channel = refusal.first
        layer, head = divmod(head, len(planned.heads))
        slab, layers = planned.slabs[layer], f"layer {key.layer + layer}"
        heads, tokens = planned.heads[head], f"{key.start + token}, channel {channel}"
    return CodecError(
        refusal.error_id,
        f'tensor "{shown(slab.tensor)}", {key.role.word}, batch {key.batch}, {layers}, '
        f"head {heads}, token {tokens}: {refusal}; the profile fails closed",
    )

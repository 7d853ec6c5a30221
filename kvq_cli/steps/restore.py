"""restore: rows and tensors of a container go where the target file wants them.

Whole files are audited on the way, from a file or a pipe: the output stands only if every
digest and both roots held. Slices of a file go by the index and read the pages they need.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

from numpy.typing import NDArray

from kvq_cli.capture.files import Files
from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import Block, Slab, write_blocks
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.coverage import Gap
from kvq_cli.container.index import PageEntry
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.reader import Reader
from kvq_cli.errors import DigestError
from kvq_cli.record import record
from kvq_cli.steps.audited import BATCH, Visitor
from kvq_cli.steps.front import load_front
from kvq_cli.steps.lost import Fill, Lost, lost_of, nan_blocks
from kvq_cli.steps.pages import OpenedPage, OpenedPiece, PageOpener, Stack
from kvq_cli.steps.select import Selection, inside
from kvq_cli.steps.target import Target
from kvq_cli.steps.work import in_batches, in_order
from kvq_cli.words import DType, PageKey


@record
class Cut:
    """What is wanted of one layer of a page: places in the page, and places in the target."""

    slab: Slab
    heads: Sequence[int]
    tokens: Sequence[int]
    target_heads: Sequence[int]
    start: int
    stop: int


class Placer(Visitor):
    """Writes what is wanted into the target; pages and tensor may be called by many threads."""

    def __init__(
        self,
        sink: Sink,
        opener: PageOpener,
        target: Target,
        cuts: tuple[Selection, DType | None],
        wrote: Callable[[int], None],
        whole: tuple[Manifest, Mapping[int, int]],
        fill: Fill | None = None,
    ) -> None:
        """`whole` is what all rows together are, and of each layer how many come before these.

        `fill` stands for rows that a partial container lacks; without it they are refused.
        """
        manifest, self._before = whole
        self._fill = fill
        self.lost = Lost()
        selection, dtype = cuts
        self._sink = sink
        self.wrote = wrote  # told of bytes placed, on the story's own thread
        self._opener = opener
        self._target = target
        self._dtype = dtype
        self._wanted = {
            layer: (selection.heads(part.kv_heads), selection.tokens(part.tokens))
            for part in manifest.parts
            for span in part.layers
            for layer in range(*span)
            if any((role, 0, layer) in target.slabs for role in part.roles)
        }
        self._places: dict[tuple[int, int], tuple[list[int], list[int]]] = {}

    def cuts(self, key: PageKey) -> list[Cut]:
        """What of this page is wanted, layer by layer."""
        size = len(self._opener.manifest.head_sets[key.head_set])
        found = (self._cut(one, at * size) for at, one in enumerate(key.apart()))
        return [cut for cut in found if cut is not None]

    def _cut(self, key: PageKey, before: int) -> Cut | None:
        """What of a layer is wanted, which has so many heads before it in its page."""
        slab = self._target.slabs.get((key.role, key.batch, key.layer))
        if slab is None:
            return None
        wanted_tokens = self._wanted[key.layer][1]
        places, targets = self._heads(key.layer, key.head_set)
        first, last = (end + self._before[key.layer] for end in (key.start, key.stop))
        start, stop = inside(wanted_tokens, first, last)
        if not places or start == stop:
            return None
        tokens: Sequence[int]
        if isinstance(wanted_tokens, range):
            tokens = range(start - first, stop - first)
        else:
            tokens = [token - first for token in wanted_tokens[start:stop]]
        return Cut(slab, [before + place for place in places], tokens, targets, start, stop)

    def pages(self, stack: Stack) -> list[int]:
        """Place what is wanted of each page; how many bytes that was."""
        cuts = [self.cuts(page.record.key) for page in stack.pages]
        if all(map(_whole, stack.pages, cuts)):
            rows = self._opener.all_rows(stack, self._dtype)
            write_blocks(self._sink, _blocks(list(chain.from_iterable(cuts)), rows))
            return [rows.nbytes // len(cuts)] * len(cuts)
        return [self._part(stack, at, each) for at, each in enumerate(cuts)]

    def _part(self, stack: Stack, at: int, cuts: Sequence[Cut]) -> int:
        """Place what is wanted of one page; layers of which tokens alike are wanted together."""
        placed = 0
        for tokens, group in groupby(cuts, key=attrgetter("tokens")):
            alike = list(group)
            heads = [stack.heads(at)[place] for cut in alike for place in cut.heads]
            rows = self._opener.rows(stack, heads, tokens, self._dtype)
            write_blocks(self._sink, _blocks(alike, rows))
            placed += rows.nbytes
        return placed

    def _heads(self, layer: int, head_set: int) -> tuple[list[int], list[int]]:
        """Wanted heads by their place in a page, and in the target; most pages share theirs."""
        found = self._places.get((layer, head_set))
        if found is None:
            wanted = self._wanted[layer][0]
            heads = self._opener.manifest.head_sets[head_set]
            places = [at for at, head in enumerate(heads) if head in wanted]
            found = places, [wanted.index(heads[at]) for at in places]
            self._places[layer, head_set] = found
        return found

    def tensor(self, piece: OpenedPiece) -> int:
        offset = self._target.tensors.get(piece.number)
        if offset is None:
            return 0
        self._sink.write(offset + piece.at, piece.data)
        return len(piece.data)

    def took(self, _: ChunkHeader, found: Any) -> None:
        self.wrote(found or 0)

    def missing(self, gaps: Sequence[Gap]) -> None:
        """Fill what is wanted and lost; new files hold zeros where nothing was written."""
        wanted = [(gap, cut) for gap in gaps if (cut := self._gap(gap)) is not None]
        lost = lost_of(self._opener.manifest, [gap for gap, _ in wanted])
        pieces = zip(lost.tensors, self._opener.lost.tensors, strict=True)
        self.lost = Lost(
            rows=lost.rows,
            files=lost.files if self._target.source else (),
            tensors=tuple(each for each, (at, _) in pieces if at in self._target.tensors),
        )
        if self._fill is None:
            self.lost.refuse()
        for _, cut in wanted if self._fill is Fill.NAN else ():
            for block in nan_blocks(cut.slab, cut.target_heads, cut.start, cut.stop):
                write_blocks(self._sink, [block])

    def _gap(self, gap: Gap) -> Cut | None:
        """What of a gap is wanted."""
        slab = self._target.slabs.get((gap.role, gap.batch, gap.layer))
        if slab is None:
            return None
        heads, tokens = self._wanted[gap.layer]
        targets = [at for span in gap.heads for at in range(*inside(heads, *span))]
        before = self._before[gap.layer]
        start, stop = inside(tokens, gap.start + before, gap.stop + before)
        return Cut(slab, (), (), targets, start, stop) if targets and start < stop else None


def _whole(page: OpenedPage, cuts: Sequence[Cut]) -> bool:
    """Whether all of a page is wanted."""
    spec = page.kind.spec
    heads, tokens = sum(len(cut.heads) for cut in cuts), {len(cut.tokens) for cut in cuts}
    return heads == spec.heads and tokens == {spec.tokens}


def _blocks(cuts: Sequence[Cut], rows: NDArray[Any]) -> Iterator[Block]:
    """The rows of each cut, one behind the other."""
    at = 0
    for cut in cuts:
        following = at + len(cut.heads)
        yield Block(cut.slab, cut.target_heads, cut.start, cut.stop, rows[at:following])
        at = following


def restore_by_index(
    reader: Reader, opener: PageOpener, pool: Executor | None, placer: Placer
) -> None:
    """Read the pages that hold wanted rows, and no other."""

    def place(entries: list[PageEntry]) -> int:
        return sum(sum(placer.pages(page_of(reader, opener, entry))) for entry in entries)

    wanted = (entry for entry in reader.entries() if placer.cuts(entry.record.key))
    placer.missing(reader.gaps())
    for count in in_order(pool, place, in_batches(wanted, lambda entry: entry.stored, BATCH)):
        placer.wrote(count)


def page_of(reader: Reader, opener: PageOpener, entry: PageEntry) -> Stack:
    """The page that the index describes; DigestError if another one lies there."""
    stack = opener.page(reader.page(entry))
    (page,) = stack.pages
    if page.record != entry.record or page.packed_digest != entry.packed_digest:
        raise DigestError("page is not the one that the index describes", entry.offset)
    return stack


def open_front(reader: Reader, opener: PageOpener) -> Files:
    """Give the opener the tables, without reading further; the source's files."""
    files, _ = load_front(opener, reader.walk())
    return files

"""coverage: pages in order, each kv head and token of every layer exactly once.

Spec: formats/container.md, section "Page order and coverage".

Pages are fed one by one, as they are written or read; only the group of layers at hand is
remembered. Gaps are told layer by layer, whatever pages held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from kvq_cli.container.manifest import MAX_PAGE, Manifest, Part
from kvq_cli.container.records import PageRecord
from kvq_cli.errors import ContainerError
from kvq_cli.record import record
from kvq_cli.words import MAX_PAGE_LAYERS, PageKey, PageSpec, Reason, Role, spans

MAX_RANGES: Final = 1 << 20

Rows: TypeAlias = tuple[Role, int, int]  # role, batch entry, layer
Group: TypeAlias = tuple[Role, int, range]  # role, batch entry, layers


@record
class Gap:
    """Rows that no page holds."""

    role: Role
    batch: int
    layer: int
    heads: tuple[tuple[int, int], ...]  # half-open ranges: there may be many heads
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(stop - start for start, stop in self.heads) * (self.stop - self.start)


class Coverage:
    """What of the promised cache the pages so far have covered; a partial one has gaps."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._parts = manifest.parts_by_layer()
        self._raw = [codec["name"] == "raw" for codec in manifest.codecs]
        self._alike = _alike(manifest)
        self._left = self._promised()  # the layers that no group so far has
        self._group: Group | None = None
        self._reached: list[int] = []
        self._last = (0, 0)
        self._partial = manifest.partial is not None
        self._lacking: list[tuple[tuple[tuple[int, int], ...], int, int]] = []  # in the group
        self.gaps: list[Gap] = []
        self._ranges = 0  # of heads in the gaps
        self.pages = 0

    def spec(self, record: PageRecord) -> PageSpec:
        """The page's spec; ContainerError where the header has no such page."""
        key = record.key
        part = self._parts.get(key.layer)
        shape = part.roles.get(key.role) if part else None
        if part is None or shape is None or key.batch >= part.batch:
            raise ContainerError("E304", f"page of a layer that the header lacks: {_name(record)}")
        if not 0 < key.layers <= min(self._alike[key.role, key.layer], MAX_PAGE_LAYERS):
            raise ContainerError("E304", f"page of layers that are not alike: {_name(record)}")
        if key.head_set >= len(self._manifest.head_sets) or record.codec >= len(self._raw):
            raise ContainerError("E304", f"page with unknown head set or codec: {_name(record)}")
        heads = self._manifest.head_sets[key.head_set]
        if heads[-1] >= part.kv_heads or key.stop > part.tokens:
            raise ContainerError("E304", f"page outside its layer: {_name(record)}")
        if record.reason is not Reason.NONE and not self._raw[record.codec]:
            raise ContainerError("E304", f"page with a reason is not raw: {_name(record)}")
        count = key.layers * len(heads)
        spec = PageSpec(count, key.stop - key.start, shape.head_dim, shape.dtype)
        if spec.nbytes > MAX_PAGE:
            raise ContainerError(
                "E306", f"page of {spec.nbytes} bytes, at most {MAX_PAGE}: {_name(record)}"
            )
        return spec

    def add(self, record: PageRecord) -> None:
        """Take the next page; ContainerError unless the header has it and it may follow."""
        self.spec(record)
        self.follow(record)

    def follow(self, record: PageRecord) -> None:
        """Take the next page, which `spec` has taken before; a refused one changes nothing."""
        key = record.key
        group = (key.role, key.batch, key.every_layer)
        if self._group == group and (key.start, key.head_set) <= self._last:
            raise ContainerError("E304", f"page out of order: {_name(record)}")
        if self._group != group:
            self._enter(group, record)
        heads = self._manifest.head_sets[key.head_set]
        for head in heads:
            reached = self._reached[head]
            if reached > key.start or (reached < key.start and not self._partial):
                raise ContainerError("E304", f"head {head} is not covered once: {_name(record)}")
        if self._partial:
            self._lack(heads, key.start)
        for head in heads:
            self._reached[head] = key.stop
        self._last = (key.start, key.head_set)
        self.pages += 1

    def finish(self) -> None:
        """ContainerError unless everything that the header promised was there."""
        self._close()
        for rows in self._left:
            self._miss(rows)

    def _enter(self, group: Group, record: PageRecord) -> None:
        """Go on to the group of a page, whose layers are the next ones unless some are lost."""
        role, batch, layers = group
        if self._group is not None and (role, batch, layers[0]) <= _last(self._group):
            raise ContainerError("E304", f"page out of order: {_name(record)}")
        self._close()
        for rows in self._left:
            if rows == (role, batch, layers[0]):
                for _ in layers[1:]:
                    next(self._left)
                self._begin(group)
                return
            self._miss(rows)
        raise AssertionError(f"the header has {_name(record)}, and nobody promised it")

    def _miss(self, rows: Rows) -> None:
        """A layer without any page."""
        role, batch, layer = rows
        if not self._partial:
            raise ContainerError("E304", f"no {role.word} pages of batch {batch}, layer {layer}")
        self._begin((role, batch, range(layer, layer + 1)))
        self._close()

    def _begin(self, group: Group) -> None:
        self._group = group
        self._reached = [0] * self._parts[group[2][0]].kv_heads

    def _close(self) -> None:
        if self._group is None:
            return
        role, batch, layers = self._group
        part = self._parts[layers[0]]
        if self._partial:
            self._lack(range(part.kv_heads), part.tokens)
            self.gaps += (Gap(role, batch, at, *lack) for at in layers for lack in self._lacking)
            self._lacking.clear()
        elif any(reached != part.tokens for reached in self._reached):
            name = PageKey(role, batch, layers[0], 0, 0, 0, len(layers)).layer_words
            what = f"{role.word} pages of batch {batch}, {name} leave tokens out"
            raise ContainerError("E304", what)

    def _lack(self, heads: Iterable[int], stop: int) -> None:
        """The tokens before `stop` that are not there of these heads are a gap."""
        assert self._group is not None
        behind: dict[int, list[int]] = {}
        for head in heads:
            if self._reached[head] < stop:
                behind.setdefault(self._reached[head], []).append(head)
        for start, group in sorted(behind.items()):
            ranges = tuple(spans(group))
            self._ranges += len(ranges) * len(self._group[2])
            self._lacking.append((ranges, start, stop))
        if self._ranges > MAX_RANGES:
            raise ContainerError("E306", f"what is lost falls into more than {MAX_RANGES} ranges")

    def _promised(self) -> Iterator[Rows]:
        most = max((part.batch for part in self._manifest.parts), default=0)
        for role in Role:
            holders: list[tuple[int, Part]] = [
                (layer, part) for layer, part in self._parts.items() if role in part.roles
            ]
            for batch in range(most if holders else 0):
                yield from ((role, batch, layer) for layer, part in holders if batch < part.batch)


def _last(group: Group) -> Rows:
    return group[0], group[1], group[2][-1]


def _alike(manifest: Manifest) -> dict[tuple[Role, int], int]:
    """How many layers, from each of a role on, follow each other and have one shape."""
    found: dict[tuple[Role, int], int] = {}
    parts = manifest.parts_by_layer()
    for layer, part in reversed(parts.items()):
        behind = parts.get(layer + 1)
        for role in part.roles:
            same = behind is not None and _shape(part, role) == _shape(behind, role)
            found[role, layer] = 1 + found[role, layer + 1] if same else 1
    return found


def _shape(part: Part, role: Role) -> tuple[object, ...]:
    shape = part.roles.get(role)
    sizes = (part.batch, part.kv_heads, part.tokens)
    return (*sizes, shape and (shape.head_dim, shape.dtype))


def _name(record: PageRecord) -> str:
    key = record.key
    return (
        f"{key.role.word}, batch {key.batch}, {key.layer_words}, "
        f"tokens {key.start}:{key.stop}, head set {key.head_set}"
    )

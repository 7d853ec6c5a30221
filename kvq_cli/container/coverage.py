"""coverage: pages in order, each kv head and token of every layer exactly once.

Spec: formats/container.md, section "Page order and coverage".

Pages are fed one by one, as they are written or read; only the layer at hand is remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, TypeAlias

from kvq_cli.container.manifest import MAX_PAGE, Manifest, Part
from kvq_cli.container.records import PageRecord
from kvq_cli.errors import ContainerError
from kvq_cli.record import record
from kvq_cli.words import PageSpec, Reason, Role, spans

MAX_RANGES: Final = 1 << 20

Group: TypeAlias = tuple[Role, int, int]  # role, batch entry, layer


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
        self._groups = self._promised()
        self._group: Group | None = None
        self._reached: list[int] = []
        self._last = (0, 0)
        self._partial = manifest.partial is not None
        self.gaps: list[Gap] = []
        self._ranges = 0  # of heads in the gaps
        self.pages = 0

    def spec(self, record: PageRecord) -> PageSpec:
        """The page's spec; ContainerError where the header has no such page."""
        key = record.key
        part = self._parts.get(key.layer)
        shape = part.roles.get(key.role) if part else None
        if part is None or shape is None or key.batch >= part.batch or key.layers != 1:
            raise ContainerError("E304", f"page of a layer that the header lacks: {_name(record)}")
        if key.head_set >= len(self._manifest.head_sets) or record.codec >= len(self._raw):
            raise ContainerError("E304", f"page with unknown head set or codec: {_name(record)}")
        heads = self._manifest.head_sets[key.head_set]
        if heads[-1] >= part.kv_heads or key.stop > part.tokens:
            raise ContainerError("E304", f"page outside its layer: {_name(record)}")
        if record.reason is not Reason.NONE and not self._raw[record.codec]:
            raise ContainerError("E304", f"page with a reason is not raw: {_name(record)}")
        spec = PageSpec(len(heads), key.stop - key.start, shape.head_dim, shape.dtype)
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
        group = (key.role, key.batch, key.layer)
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
        for role, batch, layer in self._groups:
            if not self._partial:
                name = f"no {role.word} pages of batch {batch}, layer {layer}"
                raise ContainerError("E304", name)
            self._begin((role, batch, layer))
            self._close()

    def _enter(self, group: Group, record: PageRecord) -> None:
        """Go on to the group of a page, which is the next one unless some are lost."""
        if self._group is not None and group < self._group:
            raise ContainerError("E304", f"page out of order: {_name(record)}")
        self._close()
        for each in self._groups:
            self._begin(each)
            if each == group:
                return
            if not self._partial:
                break
            self._close()
        raise ContainerError("E304", f"page out of order: {_name(record)}")

    def _begin(self, group: Group) -> None:
        self._group = group
        self._reached = [0] * self._parts[group[2]].kv_heads

    def _close(self) -> None:
        if self._group is None:
            return
        role, batch, layer = self._group
        part = self._parts[layer]
        if self._partial:
            self._lack(range(part.kv_heads), part.tokens)
        elif any(reached != part.tokens for reached in self._reached):
            raise ContainerError(
                "E304", f"{role.word} pages of batch {batch}, layer {layer} leave tokens out"
            )

    def _lack(self, heads: Iterable[int], stop: int) -> None:
        """The tokens before `stop` that are not there of these heads are a gap."""
        assert self._group is not None
        behind: dict[int, list[int]] = {}
        for head in heads:
            if self._reached[head] < stop:
                behind.setdefault(self._reached[head], []).append(head)
        for start, group in sorted(behind.items()):
            ranges = tuple(spans(group))
            self._ranges += len(ranges)
            self.gaps.append(Gap(*self._group, ranges, start, stop))
        if self._ranges > MAX_RANGES:
            raise ContainerError("E306", f"what is lost falls into more than {MAX_RANGES} ranges")

    def _promised(self) -> Iterator[Group]:
        most = max((part.batch for part in self._manifest.parts), default=0)
        for role in Role:
            holders: list[tuple[int, Part]] = [
                (layer, part) for layer, part in self._parts.items() if role in part.roles
            ]
            for batch in range(most if holders else 0):
                yield from ((role, batch, layer) for layer, part in holders if batch < part.batch)


def _name(record: PageRecord) -> str:
    key = record.key
    return (
        f"{key.role.word}, batch {key.batch}, layer {key.layer}, "
        f"tokens {key.start}:{key.stop}, head set {key.head_set}"
    )

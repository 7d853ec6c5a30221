"""plan: a capture and its profiles become a manifest and a list of pages.

Spec: formats/container.md, sections "Header" and "Page order and coverage"; formats/profile.md,
section "Groups of layers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvq_cli import __version__
from kvq_cli.capture.header import shown
from kvq_cli.capture.layout import Capture
from kvq_cli.capture.slab import Slab
from kvq_cli.capture.widened import CODES
from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_to_json
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.records import PageRecord
from kvq_cli.errors import CaptureError, ProfileError, UsageError
from kvq_cli.numerics.scratch import NO_TABLES, Tables
from kvq_cli.planes import cuts_heads, least_size
from kvq_cli.profile import Profile, Run, Storage, codec_table, pages, runs
from kvq_cli.profile.policy import RAW
from kvq_cli.record import record
from kvq_cli.steps.calibrated import UNCALIBRATED, Calibrated
from kvq_cli.steps.chain import Link
from kvq_cli.steps.choose import Choice
from kvq_cli.steps.contents import files_of, head_sets_of, part_of, tensors_of
from kvq_cli.steps.facts import part_shapes
from kvq_cli.steps.layer_groups import Groups, groups_of
from kvq_cli.steps.layered import slabs_of
from kvq_cli.steps.promised import named_tables
from kvq_cli.words import MAX_TABLE_BYTES, MAX_TABLES, PageKey, PageSpec, Reason, Role, TableSpec


@record
class PagePlan:
    """One page to be: where its bits lie and what shall become of them."""

    slabs: tuple[Slab, ...]  # of its layers, which are alike
    heads: tuple[int, ...]  # that it has of each
    record: PageRecord
    codec: Codec
    profile: Profile
    whole: PagePlan | None = None  # the page that this is a layer of

    @property
    def slab(self) -> Slab:
        """That of its first layer, whose shape all have."""
        return self.slabs[0]

    @property
    def spec(self) -> PageSpec:
        key, slab = self.record.key, self.slab
        heads = len(self.slabs) * len(self.heads)
        return PageSpec(heads, key.stop - key.start, slab.channels, slab.dtype)

    @property
    def nbytes(self) -> int:
        return self.spec.nbytes

    def apart(self) -> Iterator[PagePlan]:
        """The rows of each layer, as if they were a page."""
        for slab, key in zip(self.slabs, self.record.key.apart(), strict=True):
            yield replace(self, slabs=(slab,), record=replace(self.record, key=key), whole=self)

    def together(self) -> bool:
        """Whether all its heads have one level: some codec of its rule or ladder needs them all."""
        codecs = (self.codec, *self.profile.ladder(self.record.key.role))
        return any(whole_codec(codec, self.spec) for codec in codecs)


@record
class Plan:
    """All that is known before the first page is read."""

    capture: Capture
    profiles: Mapping[Role, Profile]
    manifest: Manifest
    codecs: tuple[Codec, ...]
    tables: Tables
    runs: Mapping[tuple[Role, int], tuple[Run, ...]]  # by role and layer
    groups: Mapping[Role, Groups]  # of layers that share their pages
    notes: tuple[str, ...]
    chain: tuple[Path, ...] = ()  # the containers that come before
    # What a budget made of pages, by role, batch entry and first layer of a group: a level for
    # each page and head.
    levels: Mapping[tuple[Role, int, int], NDArray[np.int64]] = field(default_factory=dict)
    quality: bytes | None = None  # what was measured for it
    calibration: Calibrated = UNCALIBRATED

    @property
    def largest_page(self) -> int:
        """Bytes that no page of the capture passes."""
        sizes = (
            self.groups[role].get(layer, 1)
            * slab.heads
            * min(slab.tokens, self.profiles[role].page_tokens)
            * slab.row_size
            for (role, _, layer), slab in self.capture.slabs.items()
        )
        return max(sizes, default=0)

    def pages(self) -> Iterator[PagePlan]:
        """In container order."""
        for role, batch, layer in sorted(self.capture.slabs):
            count = self.groups[role].get(layer)
            if count is not None:
                yield from self._kept(self._planned(role, batch, layer, count), role, batch, layer)

    def _planned(self, role: Role, batch: int, layer: int, count: int) -> list[PagePlan]:
        """The pages of a group, of its first layer and how many there are."""
        numbers = {heads: number for number, heads in enumerate(self.manifest.head_sets)}
        codecs = {codec: number for number, codec in enumerate(self.codecs)}
        profile = self.profiles[role]
        cuts = [
            (start, numbers[run.heads], stop, run)
            for run in self.runs[role, layer]
            for start, stop in pages(run, profile.page_tokens)
        ]
        planned = []
        slabs = slabs_of(self.capture.slabs, PageKey(role, batch, layer, 0, 0, 0, count))
        for start, head_set, stop, run in sorted(cuts, key=lambda cut: cut[:2]):
            key = PageKey(role, batch, layer, start, head_set, stop, count)
            record = PageRecord(key, codecs[run.codec], run.reason)
            planned.append(PagePlan(slabs, run.heads, record, run.codec, profile))
        return planned

    def _kept(self, planned: list[PagePlan], role: Role, batch: int, layer: int) -> list[PagePlan]:
        """The pages of a group as a budget has them: split by head where one has another level."""
        levels = self.levels.get((role, batch, layer))
        if levels is None:
            return planned
        found: list[PagePlan] = []
        for page, each in zip(planned, levels, strict=True):
            found += self._split(page, each) if each[list(page.heads)].any() else [page]
        return sorted(found, key=lambda page: page.record.key)

    def _split(self, page: PagePlan, levels: NDArray[np.int64]) -> Iterator[PagePlan]:
        """A page for each head, with the codec of its level; one of all that have one together."""
        numbers = {heads: number for number, heads in enumerate(self.manifest.head_sets)}
        ladder = self.profiles[page.record.key.role].ladder(page.record.key.role)
        apart = [page.heads] if page.together() else [(head,) for head in page.heads]
        for heads in apart:
            level = int(levels[heads[0]])
            codec = level_codec(page.codec, ladder, level)
            reason = Reason.BUDGET if level > len(ladder) else page.record.reason
            key = replace(page.record.key, head_set=numbers[heads])
            record = PageRecord(key, self.codecs.index(codec), reason)
            yield replace(page, heads=heads, record=record, codec=codec)


def whole_codec(codec: Codec, spec: PageSpec) -> bool:
    """Whether a lossy codec needs all heads of a page to give back any of it."""
    return not codec.lossless and not cuts_heads(codec.layout(spec))


def level_codec(codec: Codec, ladder: Sequence[Codec], level: int) -> Codec:
    """The codec of a level: the rule's, then those of the ladder, then raw for good."""
    return (codec, *ladder)[level] if level <= len(ladder) else RAW


def stored_by(
    codec: Codec, reason: Reason, spec: PageSpec, *, fixed_rate: bool
) -> tuple[Codec, Reason]:
    """By what a page is stored and why: raw where a lossy codec would take as much."""
    larger = not codec.lossless and least_size(codec.layout(spec)) >= spec.nbytes
    return (RAW, Reason.LARGER) if larger and not fixed_rate else (codec, reason)


def make_plan(
    capture: Capture,
    choices: tuple[Choice, ...],
    storage: Storage,
    tables: Tables = NO_TABLES,
    calibration: Calibrated = UNCALIBRATED,
    chain: Sequence[Link] = (),
) -> Plan:
    """The manifest of the container to be, and the pages it will hold.

    `tables` are there for codecs that name them; those that none does are left out. What a
    profile says of tokens counts from the start of the chain that this one continues. Groups of
    layers that a calibration has replace those that a profile counts.
    """
    _refuse_what_cannot_be_done(capture, choices)
    before = chain[-1].end if chain else 0
    codecs = codec_table(*(choice.profile for choice in choices))
    needed = _tables(codecs, choices, tables)
    profiles = {role: choice.profile for choice in choices for role in choice.roles}
    treated = {
        (role, layer): _layer_runs(capture, profiles[role], role, layer, before)
        for role, batch, layer in sorted(capture.slabs)
        if batch == 0
    }
    given = calibration.groups or {}
    groups = {
        role: groups_of(capture, role, profile, treated, given.get(role))
        for role, profile in profiles.items()
    }
    manifest = Manifest(
        layout=capture.layout,
        identity=dict(capture.identity),
        files=files_of(capture),
        tensors=tensors_of(capture),
        parts=tuple(part_of(part, capture) for part in part_shapes(capture.layers)),
        head_sets=head_sets_of(treated, profiles),
        codecs=tuple(codec_to_json(codec) for codec in codecs),
        tables=tuple(needed),
        profiles=tuple(choice.to_json() for choice in choices),
        alignment=storage.alignment,
        entropy=storage.entropy.value,
        level=storage.level,
        writer=f"kvq {__version__}",
        calibration_digest=calibration.digest,
        token_offset=before,
        continues=chain[-1].content_root if chain else None,
    )
    arrays = {**calibration.tables, **{table.digest: each for table, each in needed.items()}}
    notes = (*capture.notes, *(note for choice in choices for note in choice.notes))
    notes = (*notes, *calibration.notes)
    paths = tuple(link.path for link in chain)
    plan = Plan(capture, profiles, manifest, codecs, arrays, treated, groups, notes, paths)
    return replace(plan, calibration=calibration)


def referring(plan: Plan) -> Plan:
    """The plan of a container that only refers to what its calibration brings."""
    if plan.calibration.own:
        raise UsageError("E101", "--refer: nobody else has a calibration that is made here")
    if plan.calibration.table is None:
        raise UsageError("E101", "--refer: no profile takes a table from a calibration")
    manifest = replace(plan.manifest, referenced=(plan.calibration.table.digest,))
    return replace(plan, manifest=manifest)


def _tables(
    codecs: Sequence[Codec], choices: tuple[Choice, ...], given: Tables
) -> Mapping[TableSpec, NDArray[Any]]:
    """What the codecs need, given or from the profiles that made it; ProfileError without."""
    made = {name: array for each in choices for name, array in each.profile.tables.items()}
    made |= given
    needed = named_tables(codecs)
    total = sum(table.nbytes for table in needed)
    if len(needed) > MAX_TABLES or total > MAX_TABLE_BYTES:
        found = f"{len(needed)} tables of {total} bytes, at most {MAX_TABLES} of {MAX_TABLE_BYTES}"
        raise ProfileError("E404", found)
    for table in needed:
        array = made.get(table.digest)
        if array is None:
            found = f"table {table.digest} of a codec is missing; --codebook gives codebooks"
            raise ProfileError("E403", found)
        if array.shape != table.shape or array.dtype.str != table.dtype:
            found = f"table {table.digest} is {array.dtype.str} {list(array.shape)}, the codec"
            raise ProfileError("E402", f"{found} needs {table.dtype} {list(table.shape)}")
    return {table: made[table.digest] for table in needed}


def _layer_runs(
    capture: Capture, profile: Profile, role: Role, layer: int, before: int
) -> tuple[Run, ...]:
    """What the profile makes of one role and layer, `before` tokens of which lie elsewhere."""
    slab = capture.slabs[role, 0, layer]
    found = runs(
        profile,
        role,
        layer,
        layers=capture.depth,
        heads=slab.heads,
        tokens=before + slab.tokens,
    )
    return tuple(
        replace(run, start=max(run.start - before, 0), stop=run.stop - before)
        for run in found
        if run.stop > before
    )


def _refuse_what_cannot_be_done(capture: Capture, choices: tuple[Choice, ...]) -> None:
    lossy = any(not rule.codec.lossless for each in choices for rule in each.profile.rules)
    if lossy and capture.doubt is not None:
        raise CaptureError("E204", f"only a lossless profile can take this: {capture.doubt}")
    if lossy and capture.unquantisable:
        tensor = capture.unquantisable[0]
        hint = "; --widen takes 8-bit floats as F16" if tensor.dtype in CODES else ""
        raise CaptureError(
            "E203",
            f"{tensor.dtype} cannot be quantised, only F16, BF16 and F32{hint}",
            shown(capture.files.label(tensor)),
        )

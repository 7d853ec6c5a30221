"""planned: what a container of a cache would take, computed from the cache's geometry.

Spec: formats/report.md, section "stats --plan".

The cache is told by the header of a capture that nobody has. Its plan is the one of compress;
what every page takes follows from its codec's layout, and what frames it from the container's
structs. What entropy coding saves depends on the data, so every plane counts as it is packed.
Pages whose size is a matter of data too take what a profile's target leaves them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from kvq_cli.capture import Capture, Source, canonical
from kvq_cli.capture.files import one_file
from kvq_cli.capture.header import Header
from kvq_cli.capture.layout import bind
from kvq_cli.capture.writer import new_header
from kvq_cli.codecs import Codec
from kvq_cli.codecs.transform import Transform
from kvq_cli.container.outline import Outline
from kvq_cli.errors import CodecError, UsageError
from kvq_cli.planes import packed_sizes
from kvq_cli.profile import Profile, Run, cautions, page_lengths
from kvq_cli.steps.choose import named_profile
from kvq_cli.steps.fitted import FRAME
from kvq_cli.steps.geometry import Geometry
from kvq_cli.steps.layered import shares
from kvq_cli.steps.plan import Plan, stored_by
from kvq_cli.steps.reports import PlanReport, against, profile_names
from kvq_cli.words import DType, PageSpec, Reason, Role

TARGETED: Final = (
    "estimated by the profile's target: pages of the codec transform take what it leaves them; "
    "the calibration's table is not counted"
)


class Described(Source):
    """A source that is its header alone: there is nothing to read."""

    __slots__ = ()

    def __init__(self, header: Header) -> None:
        self.header, self.path, self._fd = header, "-", -1
        self.files = one_file(header)


def described(geometry: Geometry) -> Capture:
    """The canonical capture that such a cache would be, without its data."""
    tensors = [(role.word, str(geometry.dtype), geometry.shape) for role in Role]
    source = Described(new_header(tensors, {}))
    found = canonical.recognise(source.files)
    assert found is not None
    return bind(source, "canonical", found)


def free_profile(source: str | Path | Profile) -> Profile:
    """The profile; UsageError where it is for one capture only."""
    found = named_profile(source)
    if isinstance(found, Profile):
        return found
    raise UsageError("E101", f"{found.profile_id} is bound to a capture's shape, --plan has none")


def plan_report(name: str, geometry: Geometry, plan: Plan) -> PlanReport:
    """The sizes of the container that the plan is for."""
    sizes = _Sizes(plan, geometry.batch)
    layers = [
        row
        for role in sorted(plan.groups)
        for layer, count in plan.groups[role].items()
        for row in sizes.group(role, layer, count)
    ]
    sizes.outline.finish()
    parts = sizes.outline.parts
    source, whole = plan.manifest.source_bytes, parts.total()
    return PlanReport(
        path=name,
        computed=True,
        geometry=geometry.to_json(),
        profiles=profile_names(plan.manifest),
        pages=sizes.outline.pages,
        raw_pages={reason.word: count for reason, count in sizes.reasons.items() if reason},
        source_bytes=source,
        float32_bytes=geometry.elements * DType.F32.size,
        packed_bytes=parts["pages"],
        container_bytes=whole,
        ratio=round(source / whole, 4),
        ratio_against=against(plan.manifest),
        bits_per_element=round(whole * 8 / geometry.elements, 4),
        parts={part: count for part, count in parts.items() if count},
        layers=layers,
        notes=(*plan.notes, *cautions(plan.profiles[Role.KEY]), *_budget_note(plan), *sizes.notes),
    )


class _Sizes:
    """Adds up pages, all of one length at a time."""

    def __init__(self, plan: Plan, batch: int) -> None:
        self._plan = plan
        self._batch = batch
        self.reasons: Counter[Reason] = Counter()
        self._rate = _rate(plan, batch)
        self.notes = () if self._rate is None else (TARGETED,)
        self.outline = Outline(plan.manifest)
        for file in plan.capture.files.files:
            self.outline.source_header(len(file.head))
        self.outline.tables(plan.manifest.held)

    def group(self, role: Role, layer: int, layers: int) -> list[dict[str, Any]]:
        """What is told of layers that share their pages, over all batch entries."""
        slab = self._plan.capture.slabs[role, 0, layer]
        codecs: dict[str, None] = {}
        packed = [0] * layers
        for run in self._plan.runs[role, layer]:
            for tokens, count in page_lengths(run, self._plan.profiles[role].page_tokens).items():
                spec = PageSpec(layers * len(run.heads), tokens, slab.channels, slab.dtype)
                codec, size = self._pages(role, run, spec, count * self._batch)
                codecs[codec] = None
                for at, share in enumerate(shares(size, layers)):
                    packed[at] += count * self._batch * share
        elements = self._batch * slab.heads * slab.tokens * slab.channels
        return [
            {
                "role": role.word,
                "layer": layer + at,
                "codecs": list(codecs),
                "packed": size,
                "bits_per_element": round(size * 8 / elements, 4),
            }
            for at, size in enumerate(packed)
        ]

    def _pages(self, role: Role, run: Run, spec: PageSpec, count: int) -> tuple[str, int]:
        """The codec of so many pages of a run, and the bytes of the planes of each."""
        fixed_rate = self._plan.profiles[role].fixed_rate
        try:
            codec, reason = stored_by(run.codec, run.reason, spec, fixed_rate=fixed_rate)
            if not _open(codec):
                codec.check_spec(spec)
        except CodecError as error:
            raise UsageError("E101", f"head_dim {spec.channels} does not fit: {error}") from error
        packed = packed_sizes(codec.layout(spec))
        if _open(codec):
            assert self._rate is not None
            packed = (round(spec.elements * self._rate),)
        self.outline.add_pages(count, spec.nbytes, packed)
        self.reasons[reason] += count
        return codec.name, sum(packed)


def _open(codec: Codec) -> bool:
    """Whether the size of a page depends on more than its spec."""
    return isinstance(codec, Transform)


def _rate(plan: Plan, batch: int) -> float | None:
    """Bytes an element of such pages, by the profile's target; None where there are none.

    UsageError without a target of bits: only data tells what a step takes.
    """
    profile = plan.profiles[Role.KEY]
    if not any(_open(codec) for codec in profile.codecs()):
        return None
    if profile.target is None or profile.target.bits is None:
        found = "what the codec transform takes is a matter of data"
        raise UsageError("E101", f"{found}; --plan needs a profile whose target is bits")
    elements = fixed = left = 0
    for (role, layer), runs in plan.runs.items():
        slab = plan.capture.slabs[role, 0, layer]
        for run in runs:
            for tokens, count in page_lengths(run, plan.profiles[role].page_tokens).items():
                spec = PageSpec(len(run.heads), tokens, slab.channels, slab.dtype)
                elements += batch * count * spec.elements
                left += batch * count * spec.elements * _open(run.codec)
                size = 0 if _open(run.codec) else sum(packed_sizes(run.codec.layout(spec)))
                fixed += batch * count * (FRAME + size)
    rate = (profile.target.bits / 8 * elements - fixed) / left if left else 0.0
    if rate < 0:
        found = f"{profile.target.bits:g} bits an element are out of reach"
        raise UsageError("E101", f"--plan: {found}: what else a container holds takes more")
    return rate


def _budget_note(plan: Plan) -> Iterator[str]:
    if any(profile.budget for profile in plan.profiles.values()):
        yield "the quality budget is not counted: it takes data to know which pages it raises"

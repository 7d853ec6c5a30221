"""reports: what the stories tell, as values and as JSON.

Spec: formats/report.md. Sizes are measured on files; a ratio names what it is measured against.
Those of a PlanReport are computed, and it says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kvq_cli.container.footer import Footer
from kvq_cli.container.manifest import Manifest
from kvq_cli.digest import text
from kvq_cli.record import record
from kvq_cli.steps.encode import EncodedPage
from kvq_cli.steps.lost import Lost
from kvq_cli.steps.plan import Plan
from kvq_cli.words import Reason


@dataclass(slots=True)
class Tally:
    """What compress counts as pages go by."""

    pages: int = 0
    source_bytes: int = 0
    packed_bytes: int = 0
    stored_bytes: int = 0
    reasons: Counter[Reason] = field(default_factory=Counter)

    def add(self, page: EncodedPage) -> None:
        self.pages += 1
        self.source_bytes += page.source_bytes
        self.packed_bytes += page.coded.packed
        self.stored_bytes += page.coded.stored
        self.reasons[page.record.reason] += 1


@record
class Report:
    """Something to print, or to write as one JSON object of `results`."""

    def to_json(self) -> dict[str, Any]:
        return {key: _plain(value) for key, value in asdict(self).items()}


@record
class CompressReport(Report):
    path: str
    output: str
    layout: str
    profiles: tuple[dict[str, Any], ...]
    pages: int
    raw_pages: dict[str, int]  # by reason
    source_bytes: int
    packed_bytes: int  # of all planes, before entropy coding
    stored_bytes: int  # of all planes, after it
    file_bytes: int
    ratio: float
    ratio_against: str
    content_root: str
    file_root: str
    notes: tuple[str, ...]


@record
class DecompressReport(Report):
    path: str
    output: str
    content_root: str
    containers: int
    file_bytes: int
    output_bytes: int
    fill: str | None  # what stands for rows that partial containers lack
    lost: list[dict[str, Any]]  # and what these are, of each such container


@record
class RecoverReport(Report):
    path: str
    output: str
    complete: bool  # nothing is lost
    pages: int
    file_bytes: int  # of the damaged container
    output_bytes: int
    row_bytes: int  # of keys and values, in their own dtypes, and of those how many are lost
    lost_row_bytes: int
    unknown_sources: int  # pages whose source digest is lost
    content_root: str
    file_root: str
    lost: dict[str, Any]
    broken: tuple[dict[str, str], ...]


@record
class VerifyReport(Report):
    path: str
    pages: int
    file_bytes: int
    content_root: str
    file_root: str
    quick: bool
    quality: dict[str, dict[str, Any]]  # by bound: value, layer, head, of the worst
    broken: tuple[dict[str, str], ...]  # error_id and message of each broken expectation
    notes: tuple[str, ...]


@record
class StatsReport(Report):
    path: str
    profiles: tuple[dict[str, Any], ...]
    content_root: str
    source_bytes: int
    packed_bytes: int  # of all planes, before entropy coding
    stored_bytes: int  # of all planes, after it
    file_bytes: int
    ratio: float
    ratio_against: str
    bits_per_element: float | None
    parts: dict[str, int]  # they sum to file_bytes
    codecs: list[dict[str, Any]]
    planes: list[dict[str, Any]]
    roles: list[dict[str, Any]]
    layers: list[dict[str, Any]]
    raw_pages: dict[str, int]
    errors: list[dict[str, Any]]  # empty without the capture
    probe: dict[str, Any] | None  # whose queries attention was measured with
    attention: list[dict[str, Any]]  # empty without queries
    broken: tuple[dict[str, str], ...]
    sample: dict[str, int] | None  # what part of the capture it is of; None is all
    notes: tuple[str, ...]


@record
class PlanReport(Report):
    path: str  # of the profile
    computed: bool  # always: nothing of it was measured
    geometry: dict[str, Any]
    profiles: tuple[dict[str, Any], ...]
    pages: int
    raw_pages: dict[str, int]
    source_bytes: int
    float32_bytes: int
    packed_bytes: int  # of all planes, before entropy coding
    container_bytes: int
    ratio: float
    ratio_against: str
    bits_per_element: float
    parts: dict[str, int]  # they sum to container_bytes
    layers: list[dict[str, Any]]
    notes: tuple[str, ...]


@record
class SuggestReport(Report):
    path: str
    sample: dict[str, int] | None  # what part of the capture it is of; None is all
    source_bytes: int
    candidates: list[dict[str, Any]]  # name, bytes, ratio, bits, raw_pages; the smallest first
    bits_per_element: float  # of the first of them
    profile: dict[str, Any]
    digest: str
    notes: tuple[str, ...]


@record
class TransformReport(Report):
    """A calibration that was made; digests are of the file, and of its basis table alone."""

    path: str
    output: str
    digest: str
    basis_digest: str
    file_bytes: int
    basis_bytes: int
    captures: int
    tokens: int
    skip: int
    weights: str
    queries: list[str | None]
    groups: list[dict[str, Any]]
    held_out: list[dict[str, Any]]
    notes: tuple[str, ...]


def compress_report(path: Path, out: Path, plan: Plan, tally: Tally, end: Footer) -> CompressReport:
    source_bytes = plan.manifest.source_bytes
    return CompressReport(
        path=str(path),
        output=str(out),
        layout=plan.manifest.layout,
        profiles=profile_names(plan.manifest),
        pages=tally.pages,
        raw_pages={reason.word: count for reason, count in tally.reasons.items() if reason},
        source_bytes=source_bytes,
        packed_bytes=tally.packed_bytes,
        stored_bytes=tally.stored_bytes,
        file_bytes=end.file_length,
        ratio=round(source_bytes / end.file_length, 4),
        ratio_against=against(plan.manifest),
        content_root=text(end.content_root),
        file_root=text(end.file_root),
        notes=plan.notes,
    )


def decompress_report(
    path: Path,
    out: Path,
    ends: Sequence[Footer],
    output_bytes: int,
    fill: str | None,
    lost: Sequence[Lost],
) -> DecompressReport:
    """Of a chain, all bytes, and the root of the last container, which names the chain."""
    return DecompressReport(
        path=str(path),
        output=str(out),
        content_root=text(ends[-1].content_root),
        containers=len(ends),
        file_bytes=sum(end.file_length for end in ends),
        output_bytes=output_bytes,
        fill=fill if lost else None,
        lost=[each.to_json() for each in lost],
    )


def profile_names(manifest: Manifest) -> tuple[dict[str, Any], ...]:
    """Role, name and digest of each profile."""
    return tuple(
        {
            "roles": each["roles"],
            "name": str(each["profile"].get("name", each["profile"].get("profile_id", ""))),
            "digest": each["digest"],
        }
        for each in manifest.profiles
    )


def against(manifest: Manifest) -> str:
    """What a ratio is measured against: the source, in its own dtypes."""
    dtypes = {str(shape.dtype) for part in manifest.parts for shape in part.roles.values()}
    return f"source {'+'.join(sorted(dtypes)).lower()}" if dtypes else "source"


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value

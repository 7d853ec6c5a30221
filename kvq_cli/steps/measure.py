"""measure: where a container's bytes are, and what was lost against its capture.

Spec: formats/report.md, section "stats". The parts sum to the file's size, always.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from kvq_cli.capture import Capture
from kvq_cli.capture.files import Files
from kvq_cli.capture.slab import read_blocks
from kvq_cli.container import chunk, footer
from kvq_cli.container.chunk import ChunkHeader
from kvq_cli.container.footer import Footer
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.preamble import padded
from kvq_cli.container.reader import Reader
from kvq_cli.container.records import PageRecord
from kvq_cli.digest import text
from kvq_cli.profile import SCHEMA, cautions, parse_profile
from kvq_cli.quality import Distortion, compare
from kvq_cli.record import record
from kvq_cli.steps.audited import Visitor
from kvq_cli.steps.comparison import Comparison
from kvq_cli.steps.layered import page_blocks, page_rows, shares, slabs_of
from kvq_cli.steps.pages import OpenedPage, OpenedPiece, PageOpener, Stack
from kvq_cli.steps.reports import StatsReport, against, profile_names
from kvq_cli.steps.work import Bench
from kvq_cli.words import Role

# What chunks that are no pages count as.
PARTS: Final = {
    chunk.HEAD: "source_header",
    chunk.TABL: "tables",
    chunk.TENS: "other_tensors",
    chunk.INDX: "index",
}


@record
class _PageFound:
    record: PageRecord
    elements: int
    source_bytes: int
    planes: tuple[tuple[str, int, int], ...]  # name, stored, packed
    distortions: tuple[Distortion, ...]  # one a head; empty without a capture
    digest: bytes | None


class Measure(Visitor):
    """Adds up bytes and errors, page by page."""

    def __init__(self, reader: Reader, capture: Capture | None) -> None:
        self._reader = reader
        self._capture = capture
        self._comparison = Comparison(capture)
        self._bench = Bench()
        self._parts: Counter[str] = Counter()
        self._planes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self._roles = {role: _RoleSums() for role in Role}
        self._reasons: Counter[str] = Counter()
        self._layers: dict[tuple[Role, int], list[int]] = defaultdict(lambda: [0, 0])
        self._errors: dict[tuple[Role, int, int], Distortion] = defaultdict(Distortion)
        self._opener: PageOpener

    def begin(self, opener: PageOpener, files: Files) -> Measure:
        self._opener = opener
        self._comparison.begin(opener, files)
        self._parts["header"] = self._reader.first_chunk
        return self

    def pages(self, stack: Stack) -> list[_PageFound]:
        digests = self._comparison.digests(stack)
        if self._capture is None or not all(digests):
            self._opener.check_words(stack)  # the others are decoded
        numbered = enumerate(zip(stack.pages, digests, strict=True))
        return [self._found(stack, at, page, digest) for at, (page, digest) in numbered]

    def _found(self, stack: Stack, at: int, page: OpenedPage, digest: bytes | None) -> _PageFound:
        kind, name = page.kind, page.kind.codec.name
        planes = tuple(
            (f"{name}.{plane.name}", entry.stored, entry.packed)
            for plane, entry in zip(kind.layout, page.table.planes, strict=True)
        )
        distortions: list[Distortion] = []
        if self._capture is not None and digest:
            distortions = self._compared(self._capture, stack, at)
        spec = kind.spec
        return _PageFound(
            page.record, spec.elements, spec.nbytes, planes, tuple(distortions), digest
        )

    def tensor(self, piece: OpenedPiece) -> str | None:
        return self._comparison.tensor(piece)

    def took(self, header: ChunkHeader, found: Any) -> None:
        size = chunk.SIZE + header.stored
        padding = padded(size, self._reader.alignment) - size
        self._parts["padding"] += padding
        if isinstance(found, _PageFound):
            self._comparison.took(header, found.digest)
            self._took_page(header, found)
            return
        self._comparison.took(header, found)
        self._parts[PARTS.get(header.type, "ancillary")] += size

    def leaf(self, payload: memoryview, offset: int) -> None:
        self._comparison.leaf(payload, offset)

    def report(self, path: str, end: Footer) -> StatsReport:
        self._comparison.finish()
        manifest = self._reader.manifest
        self._parts["footer"] = footer.SIZE
        elements = sum(sums.elements for sums in self._roles.values())
        return StatsReport(
            path=path,
            profiles=profile_names(manifest),
            content_root=text(end.content_root),
            source_bytes=manifest.source_bytes,
            packed_bytes=sum(packed for _, packed in self._planes.values()),
            stored_bytes=sum(stored for stored, _ in self._planes.values()),
            file_bytes=end.file_length,
            ratio=round(manifest.source_bytes / end.file_length, 4),
            ratio_against=against(manifest),
            bits_per_element=round(end.file_length * 8 / elements, 4) if elements else None,
            parts=dict(self._parts),
            codecs=self._codecs(),
            planes=[
                {"name": name, "stored": stored, "packed": packed}
                for name, (stored, packed) in self._planes.items()
            ],
            roles=[self._role(role) for role, sums in self._roles.items() if sums.elements],
            layers=[
                {
                    "role": role.word,
                    "layer": layer,
                    "stored": stored,
                    "bits_per_element": round(stored * 8 / count, 4),
                }
                for (role, layer), (stored, count) in self._layers.items()
            ],
            raw_pages=dict(self._reasons),
            errors=self._error_rows(),
            probe=None,
            attention=[],
            broken=tuple(self._comparison.broken),
            sample=None,
            notes=tuple(_cautions(manifest)),
        )

    def _compared(self, capture: Capture, stack: Stack, at: int) -> list[Distortion]:
        key, spec = stack.pages[at].record.key, stack.pages[at].kind.spec
        slabs, heads = slabs_of(capture.slabs, key), self._opener.manifest.head_sets[key.head_set]
        scratch = self._bench.scratch
        original = scratch.take("original", spec.shape, spec.dtype.bits)
        read_blocks(capture.source, page_blocks(slabs, heads, key, original))
        restored = self._opener.rows(stack, stack.heads(at), range(spec.tokens), None)
        return compare(original, restored, spec.dtype, scratch)

    def _took_page(self, header: ChunkHeader, found: _PageFound) -> None:
        key = found.record.key
        stored = sum(plane[1] for plane in found.planes)
        self._parts["pages"] += stored
        self._parts["page_framing"] += chunk.SIZE + header.stored - stored
        for name, plane_stored, packed in found.planes:
            self._planes[name][0] += plane_stored
            self._planes[name][1] += packed
        self._roles[key.role].add(found, stored)
        for layer, share in zip(key.every_layer, shares(stored, key.layers), strict=True):
            sums = self._layers[key.role, layer]
            sums[0] += share
            sums[1] += found.elements // key.layers
        if found.record.reason:
            self._reasons[found.record.reason.word] += 1
        heads = self._opener.manifest.head_sets[key.head_set]
        for place, distortion in zip(page_rows(key, heads), found.distortions, strict=False):
            self._errors[key.role, *place].merge(distortion)

    def _role(self, role: Role) -> dict[str, Any]:
        sums = self._roles[role]
        return {
            "role": role.word,
            "elements": sums.elements,
            "source_bytes": sums.source,
            "packed_bytes": sums.packed,
            "stored_bytes": sums.stored,
            "ratio": round(sums.source / sums.stored, 4) if sums.stored else None,
        }

    def _codecs(self) -> list[dict[str, Any]]:
        """The planes of each codec together."""
        sums: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for name, (stored, packed) in self._planes.items():
            codec = name.partition(".")[0]
            sums[codec][0] += stored
            sums[codec][1] += packed
        return [
            {"name": name, "stored": stored, "packed": packed}
            for name, (stored, packed) in sums.items()
        ]

    def _error_rows(self) -> list[dict[str, Any]]:
        """Per head, per layer, per role: the finest rows first, whatever order pages had."""
        rows = []
        layers: dict[tuple[Role, int], Distortion] = defaultdict(Distortion)
        roles: dict[Role, Distortion] = defaultdict(Distortion)
        for (role, layer, head), distortion in sorted(self._errors.items(), key=itemgetter(0)):
            rows.append({"role": role.word, "layer": layer, "head": head, **distortion.to_json()})
            layers[role, layer].merge(distortion)
            roles[role].merge(distortion)
        for (role, layer), distortion in layers.items():
            rows.append({"role": role.word, "layer": layer, "head": None, **distortion.to_json()})
        for role, distortion in roles.items():
            rows.append({"role": role.word, "layer": None, "head": None, **distortion.to_json()})
        return rows


@dataclass(slots=True)
class _RoleSums:
    elements: int = 0
    source: int = 0
    packed: int = 0
    stored: int = 0

    def add(self, found: _PageFound, stored: int) -> None:
        self.elements += found.elements
        self.source += found.source_bytes
        self.packed += sum(plane[2] for plane in found.planes)
        self.stored += stored


def _cautions(manifest: Manifest) -> Iterator[str]:
    """What somebody should know of the profiles, once each."""
    for each in manifest.profiles:
        if Role.KEY.word in each["roles"] and each["profile"].get("schema") == SCHEMA:
            yield from cautions(parse_profile(each["profile"]))

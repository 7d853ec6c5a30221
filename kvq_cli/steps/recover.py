"""recover: what is intact of a torn or damaged container, as a container that says what it lacks.

Spec: formats/container.md, section "Partial containers".

Where nothing is lost but an index, a footer or padding, the container is the one that it was.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from kvq_cli.container import chunk, index
from kvq_cli.container.coverage import Gap
from kvq_cli.container.footer import Footer
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.partial import Partial
from kvq_cli.container.reader import Reader
from kvq_cli.container.records import pieces
from kvq_cli.container.writer import Writer
from kvq_cli.digest import text
from kvq_cli.errors import ContainerError
from kvq_cli.record import record
from kvq_cli.steps.intact import Found, Intact, Leaves
from kvq_cli.steps.kept import recorded_bounds
from kvq_cli.steps.lost import PARTIAL, lost_of, lost_row_bytes, row_bytes
from kvq_cli.steps.reports import RecoverReport
from kvq_cli.steps.work import Progress


@record(eq=False)
class Survey:
    """What of a container is intact."""

    manifest: Manifest  # of the container that can be written
    gaps: tuple[Gap, ...]
    unknown: int  # pages whose source digest is lost
    leaves: Leaves


class _Tally:
    """What one pass comes by, besides rows."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves
        self._waiting: dict[int, bytes] = {}  # packed digests of pages without a leaf so far
        self._unknown = 0
        self.files: set[int] = set()
        self.tensors: set[tuple[int, int]] = set()
        self.quality = False

    def take(self, found: Found) -> None:
        kind = found.header.type
        if kind == chunk.HEAD:
            self.files.add(found.place[0])
        elif kind == chunk.TENS:
            self.tensors.add(found.place)
        elif kind == chunk.PAGE and found.source == index.NO_DIGEST:
            self._waiting[found.header.sequence] = found.packed_digest
        elif kind == chunk.INDX:
            self._unknown += self._leaves.add(found, self._waiting)
        self.quality |= kind == chunk.QUAL

    @property
    def unknown(self) -> int:
        """Pages whose source digest is lost."""
        return self._unknown + len(self._waiting)


def survey(reader: Reader, pool: Executor | None, progress: Progress) -> Survey:
    """Look through a container; ContainerError where no page or tensor is left."""
    manifest, leaves = reader.manifest, Leaves(reader)
    # The first of two passes.
    intact = Intact(reader, pool, lambda done, total: progress(done, 2 * total))
    tally = _Tally(leaves)
    for found in intact.chunks():
        tally.take(found)
    intact.coverage.finish()
    pages, gaps = intact.coverage.pages, tuple(intact.coverage.gaps)
    if not (pages or tally.tensors) and (gaps or any(manifest.carried)):
        raise ContainerError("E302", "no page or tensor of it is intact: nothing to recover")
    promised = [piece[:2] for piece in pieces(manifest.carried)]
    lost = replace(
        manifest.partial or Partial(text(reader.digest), _root(reader)),
        files=tuple(at for at in range(manifest.sources) if at not in tally.files),
        tables=intact.lost_tables,
        tensors=tuple(piece for piece in promised if piece not in tally.tensors),
    )
    unmeasured = not tally.quality and bool(recorded_bounds(manifest))
    broken = lost.files or lost.tables or lost.tensors or gaps or tally.unknown or unmeasured
    if broken or manifest.partial is not None:
        manifest = replace(manifest, partial=lost)
    return Survey(manifest, gaps, tally.unknown, leaves)


def write_intact(
    reader: Reader,
    found: Survey,
    write: Callable[..., object],
    pool: Executor | None,
    progress: Progress,
) -> Footer:
    """The container of what a survey found."""
    lost = found.manifest.partial.tables if found.manifest.partial else ()
    writer = Writer(found.manifest, write)
    intact = Intact(reader, pool, lambda done, total: progress(total + done, 2 * total))
    for each in intact.chunks():
        if each.coded is None:
            if each.header.ancillary:
                writer.append_note(each.header.type, each.payload)
        elif each.record is not None:
            writer.append_page(each.coded, each.record, found.leaves.source(each))
        elif each.header.type != chunk.TABL or each.place[0] not in lost:
            writer.append(each.coded)
    return writer.finish()


def recover_report(path: Path, out: Path, size: int, found: Survey, end: Footer) -> RecoverReport:
    manifest = found.manifest
    lost = lost_of(manifest, found.gaps)
    broken = {"error_id": PARTIAL, "message": f"{out} is partial; kvq inspect lists what is lost"}
    return RecoverReport(
        path=str(path),
        output=str(out),
        complete=manifest.partial is None,
        pages=end.pages,
        file_bytes=size,
        output_bytes=end.file_length,
        row_bytes=row_bytes(manifest),
        lost_row_bytes=lost_row_bytes(manifest, found.gaps),
        unknown_sources=found.unknown,
        content_root=text(end.content_root),
        file_root=text(end.file_root),
        lost=lost.to_json(),
        broken=() if manifest.partial is None else (broken,),
    )


def _root(reader: Reader) -> str | None:
    """The content_root that the footer tells, if there is one."""
    try:
        return text(reader.footer().content_root)
    except ContainerError:
        return None

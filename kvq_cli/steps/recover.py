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
from kvq_cli.steps.intact import Intact, Leaves
from kvq_cli.steps.kept import recorded_bounds
from kvq_cli.steps.lost import PARTIAL, lost_of, lost_row_bytes, row_bytes
from kvq_cli.steps.reports import RecoverReport
from kvq_cli.steps.work import Progress


@record(eq=False)
class Survey:
    """What of a container is intact."""

    manifest: Manifest  # of the container that can be written
    gaps: tuple[Gap, ...]
    pages: int
    unknown: int  # pages whose source digest is lost
    leaves: Leaves


def survey(reader: Reader, pool: Executor | None, progress: Progress) -> Survey:
    """Look through a container; ContainerError where no page or tensor is left."""
    intact, leaves = Intact(reader, pool, progress), Leaves(reader)
    files, tensors, waiting = set[int](), set[tuple[int, int]](), dict[int, bytes]()
    unknown, told = 0, False
    for found in intact.chunks():
        kind = found.header.type
        if kind == chunk.HEAD:
            files.add(found.place[0])
        elif kind == chunk.TENS:
            tensors.add(found.place)
        elif kind == chunk.PAGE and found.source == index.NO_DIGEST:
            waiting[found.header.sequence] = found.packed_digest
        elif kind == chunk.INDX:
            unknown += leaves.add(found, waiting)
        told |= kind == chunk.QUAL
    intact.coverage.finish()
    pages, gaps = intact.coverage.pages, tuple(intact.coverage.gaps)
    manifest = reader.manifest
    if not (pages or tensors) and (gaps or any(manifest.carried)):
        raise ContainerError("E302", "no page or tensor of it is intact: nothing to recover")
    promised = [piece[:2] for piece in pieces(manifest.carried)]
    lost = replace(
        manifest.partial or Partial(text(reader.digest), _root(reader)),
        files=tuple(number for number in range(manifest.sources) if number not in files),
        tables=intact.lost_tables,
        tensors=tuple(piece for piece in promised if piece not in tensors),
    )
    unknown += len(waiting)
    silent = not told and bool(recorded_bounds(manifest))
    whole = not (lost.files or lost.tables or lost.tensors or gaps or unknown or silent)
    if not whole or manifest.partial is not None:
        manifest = replace(manifest, partial=lost)
    return Survey(manifest, gaps, pages, unknown, leaves)


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
    for each in Intact(reader, pool, progress).chunks():
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

"""pipeline: the stories, and what the Python API offers.

    compress     capture → pages → planes → chunks → container
    decompress   container → chunks → planes → pages → safetensors file
    inspect      headers and index, said in words
    verify       every digest, and what is expected of the file
    stats        where the bytes are, and what compression cost
    recover      damaged container → intact chunks → container
    calibrate_transform    captures → moments → transforms → calibration

Every story takes paths ("-" is a pipe) or open descriptors, and returns a report. Each line
crosses one boundary: capture, codecs, container and quality know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

from kvq_cli.capture import Capture
from kvq_cli.container import chunk
from kvq_cli.container.footer import Footer
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.container.writer import Writer
from kvq_cli.digest import text
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.profile import Profile, load_budget
from kvq_cli.steps import calibrated_file, comparison, expect, measure, reports
from kvq_cli.steps.audited import check_stored, read_all
from kvq_cli.steps.books import read_codebooks
from kvq_cli.steps.bound import calibrated
from kvq_cli.steps.budget import kept_to_budget
from kvq_cli.steps.chain import Link, read_chain
from kvq_cli.steps.choose import Choice, choose_profiles, storage_of
from kvq_cli.steps.compared import its_capture
from kvq_cli.steps.describe import inspect, kind_of
from kvq_cli.steps.drift import with_attention
from kvq_cli.steps.encode import Encoder, batches
from kvq_cli.steps.facts import shapes_of
from kvq_cli.steps.fitted import on_target
from kvq_cli.steps.given import opened
from kvq_cli.steps.identity import check_identity, check_keys
from kvq_cli.steps.inputs import (
    byte_source,
    capture_input,
    damaged_reader,
    default_recovered,
    default_restored,
    default_target,
    open_reader,
)
from kvq_cli.steps.joining import Joining, open_chain
from kvq_cli.steps.kept import held_to_budgets
from kvq_cli.steps.lost import PARTIAL, Fill
from kvq_cli.steps.narrow import segment_of
from kvq_cli.steps.output import Output, check_output, open_output, spool
from kvq_cli.steps.pages import PageOpener
from kvq_cli.steps.placed import open_placed
from kvq_cli.steps.plan import Plan, make_plan, referring
from kvq_cli.steps.probe import QuerySource
from kvq_cli.steps.recover import recover_report, survey, write_intact
from kvq_cli.steps.referred import give, offer
from kvq_cli.steps.restore import open_front, restore_by_index
from kvq_cli.steps.sample import Sample, sampled
from kvq_cli.steps.select import Selection
from kvq_cli.steps.target import is_folder
from kvq_cli.steps.transformed import Setting, make
from kvq_cli.steps.verdict import Found, strictest
from kvq_cli.steps.work import Progress, in_order, silent, workers
from kvq_cli.words import DType

ProfileSource: TypeAlias = str | Path | Profile

__all__ = [
    "compress",
    "decompress",
    "inspect",
    "recover",
    "stats",
    "verify",
]


def compress(
    source: str | Path | Capture,
    target: str | Path | None = None,
    *,
    profiles: Sequence[ProfileSource] = (),
    codebooks: Sequence[str | Path] = (),
    meta: Mapping[str, str] | None = None,
    shape: str | Path | None = None,
    layout: str | None = None,
    queries: str | Path | None = None,
    calibration: str | Path | None = None,
    refer: bool = False,
    level: int | None = None,
    alignment: int | None = None,
    widen: bool = False,
    continues: Sequence[str | Path] = (),
    full: bool = False,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> reports.CompressReport:
    """Write a container of the capture; without a profile nothing is lost.

    What a profile's budget bounds is measured first, with the capture's own queries, or those
    named: a file, or "self". Of a calibration the container holds what its decoder needs, or
    does but `refer` to it. With `continues`, the containers of a chain or the last of them,
    the capture holds the tokens after it, or, if it is `full`, all tokens from the first on.
    Its 8-bit floats become F16 where they shall be wide.
    """
    given = source if isinstance(source, Capture) else Path(source)
    path = Path(given.source.path) if isinstance(given, Capture) else given
    out = Path(target) if target is not None else default_target(path)
    inputs = () if isinstance(given, Capture) else (path,)
    # A pipe is read to its end before the output is opened.
    check_output(out, force=force, inputs=inputs)
    opened = capture_input(given, layout, meta, shape=shape, widen=widen, target=out)
    with opened as whole, ExitStack() as stack:
        chain = read_chain(continues)
        capture = segment_of(whole, chain, full=full)
        terms = (profiles, codebooks, calibration, queries, threads, progress)
        plan = _planned(capture, *terms, level, alignment, chain)
        plan = referring(plan) if refer else plan
        plan = kept_to_budget(plan, queries, threads, progress)
        if queries is not None and plan.quality is None and plan.manifest.probe == "none":
            raise UsageError("E101", "--queries: no profile has a budget to measure for")
        output = stack.enter_context(open_output(out, force=force, inputs=inputs))
        tally = reports.Tally()
        end = write_container(plan, output.write, threads, tally=tally, progress=progress)
        capture.source.check_unchanged()
        return reports.compress_report(path, out, plan, tally, end)


def write_container(
    plan: Plan,
    write: Callable[..., object],
    threads: int,
    *,
    tally: reports.Tally,
    progress: Progress = silent,
) -> Footer:
    """The story of compress, from plan to footer."""
    encoder = Encoder(plan)
    writer = Writer(plan.manifest, write)
    total = sum(tensor.nbytes for tensor in plan.manifest.tensors if tensor.rows is not None)
    with workers(threads, encoder.room) as pool:
        for front in encoder.front():
            writer.append(front)
        if plan.quality is not None:
            writer.append_note(chunk.QUAL, plan.quality)
        for batch in in_order(pool, encoder.encode_batch, batches(plan.pages())):
            for page in batch:
                writer.append_page(page.coded, page.record, page.source_digest)
                tally.add(page)
            progress(tally.source_bytes, total)
    return writer.finish()


def decompress(
    source: str | Path,
    target: str | Path | None = None,
    *,
    then: Sequence[str | Path] = (),
    selection: Selection | None = None,
    layout: str = "source",
    dtype: DType | None = None,
    identity: Mapping[str, str] | None = None,
    calibration: str | Path | None = None,
    partial: Fill | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> reports.DecompressReport:
    """Restore a file or folder; unsliced, in its own layout and dtype, the original one.

    `then` are containers that continue it, each the one before: their tokens are joined. One
    of another identity than the expected one is refused before anything is written. What a
    partial container lacks of it is filled, or refused.
    """
    check_keys(identity or {})
    path, wanted = Path(source), selection or Selection()
    out = Path(target) if target is not None else default_restored(path)
    paths = (path, *map(Path, then))
    with ExitStack() as stack:
        chain = open_chain(paths, stack)
        for reader in chain:
            check_identity(reader.manifest, identity or {})
            give(reader, calibration)
        manifests = [reader.manifest for reader in chain]
        joining = Joining(manifests, wanted, layout, dtype, partial)
        folder = is_folder(joining.manifest, layout)
        placed = stack.enter_context(open_placed(out, folder=folder, force=force, inputs=paths))
        ends = []
        for at, reader in enumerate(chain):
            begin = joining.begin(at, placed)
            with workers(threads, messages=reader.source.seekable) as pool:
                if wanted.cuts and reader.source.seekable:
                    opener = PageOpener(reader)
                    placer = begin(opener, open_front(reader, opener))
                    restore_by_index(reader, opener, pool, placer)
                    ends.append(reader.footer())
                else:
                    ends.append(read_all(reader, pool, begin, progress))
        return reports.decompress_report(path, out, ends, joining.size, partial, joining.lost)


def verify(
    source: str | Path,
    *,
    expected: expect.Expected | None = None,
    against: str | Path | None = None,
    queries: str | Path | None = None,
    budget: str | Path | None = None,
    quick: bool = False,
    partial: bool = False,
    threads: int = 0,
    progress: Progress = silent,
) -> reports.VerifyReport:
    """Check every digest, then what is expected; broken expectations are in the report.

    Quality budgets, that of the profile and a further one, are held against what the container
    says of itself; next to its capture, what they bound is measured again. A partial container
    keeps none of it, and is refused unless it is expected to be `partial`.
    """
    path = Path(source)
    if quick and (against or budget):
        raise UsageError("E101", "--quick reads no pages, so there is nothing to compare")
    if queries and not against:
        raise UsageError("E101", "--queries measures again, which needs --against")
    expected = expected or expect.Expected()
    check_keys(expected.identity)
    further = strictest([load_budget(budget)]) if budget else {}
    with open_reader(path) as reader, ExitStack() as stack:
        offer(reader, expected.calibration)
        pool = stack.enter_context(workers(threads, messages=reader.source.seekable))
        capture = _its_capture(stack, against, reader)
        compared = comparison.Comparison(capture)
        worst: Found = {}
        broken: list[comparison.Broken] = []
        notes: list[str] = []
        if quick:
            end = check_stored(reader, pool, progress)
        else:
            end = read_all(reader, pool, compared.begin, progress)
            compared.finish()
            worst, broken, notes = held_to_budgets(
                reader, compared, capture, further, queries, threads, progress
            )
        broken += expect.find_broken(reader.manifest, end, expected)
        if reader.manifest.partial is not None and not partial:
            broken.append(comparison.broken(PARTIAL, "container is partial; see kvq inspect"))
        return reports.VerifyReport(
            path=str(path),
            pages=end.pages,
            file_bytes=end.file_length,
            content_root=text(end.content_root),
            file_root=text(end.file_root),
            quick=quick,
            quality={name: each.to_json() for name, each in worst.items()},
            broken=(*broken, *compared.broken),
            notes=tuple(notes),
        )


def stats(
    source: str | Path,
    *,
    profiles: Sequence[ProfileSource] = (),
    codebooks: Sequence[str | Path] = (),
    meta: Mapping[str, str] | None = None,
    layout: str | None = None,
    against: str | Path | None = None,
    queries: str | Path | None = None,
    calibration: str | Path | None = None,
    sample: str | None = None,
    widen: bool = False,
    threads: int = 0,
    progress: Progress = silent,
) -> reports.StatsReport:
    """Measured bytes of every part and, next to the capture, what was lost.

    Given a capture, it, or a sample such as "4x2048", is compressed into a temporary file that
    nobody sees. Attention is measured with the capture's own queries, or those named: a file, or
    "self".
    """
    path = Path(source)
    capture: Capture | None = None
    asked: QuerySource = queries
    part, told = Sample.parse(sample) if sample is not None else None, None
    with ExitStack() as stack:
        if kind_of(path) == "capture":
            if against:
                raise UsageError("E101", "--against is for containers; a capture is its own")
            whole = stack.enter_context(capture_input(path, layout, meta, widen=widen))
            capture, asked, told = stack.enter_context(sampled(whole, part, queries))
            fd = stack.enter_context(spool())
            plan = _planned(capture, profiles, codebooks, calibration, asked, threads, progress)
            plan = kept_to_budget(plan, asked, threads, progress)
            tally = reports.Tally()
            write_container(plan, Output(fd, "spool", seekable=True).write, threads, tally=tally)
            container = ByteSource(fd, str(path), owned=False)
        elif profiles or codebooks or layout or meta or widen:
            what = "--layout, --meta, --widen are" if layout or meta or widen else "--profile is"
            raise UsageError("E101", f"{what} for captures; a container has its own")
        elif part:
            raise UsageError("E101", "--sample is for captures")
        else:
            container = stack.enter_context(byte_source(path))
        reader = Reader(container)
        if capture is None:
            give(reader, calibration)
        if reader.manifest.partial is not None:
            raise ExpectationError(PARTIAL, "container is partial: nothing is measured of it")
        capture = capture or _its_capture(stack, against, reader)
        with workers(threads, messages=container.seekable) as pool:
            measured = measure.Measure(reader, capture)
            end = read_all(reader, pool, measured.begin, progress)
        report = replace(measured.report(str(path), end), sample=told)
        return with_attention(report, capture, reader, asked, threads, progress)


def recover(
    source: str | Path,
    target: str | Path | None = None,
    *,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> reports.RecoverReport:
    """Write what is intact of a torn or damaged container; the header must be.

    Where rows, files, tables or tensors are lost the new container is partial, and lists them.
    """
    path = Path(source)
    out = Path(target) if target is not None else default_recovered(path)
    check_output(out, force=force, inputs=(path,))
    with damaged_reader(path, out) as reader, ExitStack() as stack:
        # Results hold payloads, which threads share.
        pool = stack.enter_context(workers(threads, messages=False))
        found = survey(reader, pool, progress)
        output = stack.enter_context(open_output(out, force=force, inputs=(path,)))
        end = write_intact(reader, found, output.write, pool, progress)
        return recover_report(path, out, reader.source.size or 0, found, end)


def calibrate_transform(
    sources: Sequence[str | Path],
    target: str | Path,
    *,
    setting: Setting | None = None,
    queries: Sequence[str | Path] = (),
    meta: Mapping[str, str] | None = None,
    layout: str | None = None,
    threads: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> reports.TransformReport:
    """Write a calibration for the codec transform, made of captures of one model.

    `queries` are files of those of each capture, in order; else each has its own, or a file
    beside it.
    """
    setting, out = setting or Setting(), Path(target)
    inputs = tuple(map(Path, (*sources, *queries)))
    check_output(out, force=force, inputs=inputs)
    with opened(sources, queries, layout, dict(meta or {})) as captures:
        made = make(captures, setting, threads, progress)
        for each in captures:
            each.capture.source.check_unchanged()
        with open_output(out, force=force, inputs=inputs) as output:
            return replace(calibrated_file.write(output, made, captures, setting), path=str(target))


def _its_capture(stack: ExitStack, path: str | Path | None, reader: Reader) -> Capture | None:
    """What a container is compared with, where the user names it."""
    if path is None:
        return None
    return stack.enter_context(its_capture(Path(path), reader.manifest))


def _planned(
    capture: Capture,
    profiles: Sequence[ProfileSource],
    codebooks: Sequence[str | Path],
    calibration: str | Path | None,
    queries: QuerySource,
    threads: int,
    progress: Progress,
    level: int | None = None,
    alignment: int | None = None,
    chain: Sequence[Link] = (),
) -> Plan:
    """What profiles make of a capture, on target, their budgets not yet looked at."""
    choices = choose_profiles(profiles, shapes_of(capture))
    choices, found = calibrated(capture, choices, calibration, threads, progress)
    storage = storage_of(choices, level, alignment)
    tables = {**read_codebooks(codebooks), **found.tables}

    def plan_of(chosen: Sequence[Choice]) -> Plan:
        return make_plan(capture, tuple(chosen), storage, tables, found, chain)

    return on_target(plan_of, choices, queries, threads, progress)

"""verify: every digest of a container, and what is expected of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Annotated, Any

import typer

from kvq_cli.cli import formats, options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.errors import ContainerError, UsageError

EXAMPLES = """\b
Examples:
  kvq verify cache.kvq --profile int8 --min-ratio 1.9
  kvq verify cache.kvq --quick --expect model=org/name --expect layers=32
  kvq verify *.kvq --min-ratio 3 --budget bounds.json --format junit > kvq.xml
  kvq verify --check SUMS"""


def verify(
    inputs: options.Inputs = None,
    profile: Annotated[
        list[str] | None, typer.Option("-p", "--profile", help="Profile it must have.")
    ] = None,
    shape: Annotated[
        list[str] | None, typer.Option("--shape", help="Shape JSON it must have.")
    ] = None,
    expect: options.Expect = None,
    content_root: Annotated[
        str | None, typer.Option("--content-root", help="Digest it must have.")
    ] = None,
    file_root: Annotated[str | None, typer.Option("--file-root", help="Likewise.")] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Capture that it must come from.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option("--queries", help="Queries to measure attention with again: a file, or self."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="JSON of quality bounds that must hold.")
    ] = None,
    continues: Annotated[
        str | None, typer.Option("--continues", help="Container that it must continue.")
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="Calibration it must be made with.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Stored digests only; decode nothing.")
    ] = False,
    min_ratio: Annotated[
        float | None, typer.Option("--min-ratio", help="Source bytes over file bytes.")
    ] = None,
    max_bytes: Annotated[int | None, typer.Option("--max-bytes", help="Largest file.")] = None,
    check: Annotated[
        list[str] | None, typer.Option("--check", help="Lines of content_root and name.")
    ] = None,
    form: Annotated[
        formats.Format, typer.Option("--format", help="What is printed, for a CI to read.")
    ] = formats.Format.TEXT,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which bytes are wrong, what they are, and why.")
    ] = False,
    partial_: Annotated[
        bool, typer.Option("--partial", help="It may be partial, as recover writes it.")
    ] = False,
    status: Annotated[bool, typer.Option("--status", help="Exit code only.")] = False,
    threads: options.Threads = 0,
    json: options.Json = False,
    ndjson: options.NdJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    no_progress: options.NoProgress = False,
    color: options.ColorWhen = options.Color.AUTO,
    fail_fast: options.FailFast = False,
    files_from: options.FilesFrom = None,
    null: options.Nul = False,
) -> int:
    """Check that containers are intact and, where asked, what they are expected to be."""
    from kvq_cli import pipeline
    from kvq_cli.cli.sums import read_sums
    from kvq_cli.steps.expect import Expected
    from kvq_cli.steps.identity import check_keys

    common = options.Common(
        "verify", json, ndjson, quiet or status, verbose, not no_progress, color, fail_fast
    )
    if min_ratio is not None and not math.isfinite(min_ratio):
        raise UsageError("E101", f"--min-ratio {min_ratio}: a number is expected")
    wanted = options.key_values("--expect", expect)
    check_keys(wanted)
    listed = [entry for path in check or [] for entry in read_sums(path)]
    if check and (inputs or files_from):
        raise UsageError("E101", "--check brings its own file names")
    if check and not listed:
        raise UsageError("E101", f"--check {check[0]}: no line of content_root and name")
    if listed and content_root is not None:
        raise UsageError("E101", "--check brings its own content roots")
    names = [options.file_name(name) for name, _ in listed]
    names = names or options.input_names(inputs, files_from, null=null)
    # One a line, in order: a name may stand on two lines, and both must hold.
    roots: Iterator[str | None] = repeat(content_root)
    if listed:
        roots = iter([root for _, root in listed])

    def story(name: str) -> Any:
        return pipeline.verify(
            name,
            expected=Expected(
                profiles=profile or [],
                shapes=shape or [],
                content_root=next(roots),
                file_root=file_root,
                min_ratio=min_ratio,
                max_bytes=max_bytes,
                calibration=calibration,
                continues=continues,
                identity=wanted,
            ),
            against=against,
            queries=queries,
            budget=budget,
            quick=quick,
            partial=partial_,
            threads=threads,
            progress=render.progress(common, name),
        )

    finish = None
    if form is not formats.Format.TEXT:
        if json or ndjson or status:
            raise UsageError("E101", "--format does not go with --json, --ndjson or --status")
        finish = partial(formats.written, form=form)
    tell = _explaining(story, names) if explain else story
    return each_input(names, tell, common, human=_human, silent=status, finish=finish)


verify.__doc__ = f"{verify.__doc__}\n\n{EXAMPLES}"


def _explaining(story: Callable[[str], Any], names: list[str]) -> Callable[[str], Any]:
    """The story, which says more of a container that is refused."""
    from kvq_cli.steps.explain import explained

    if "-" in names:
        raise UsageError("E101", "--explain reads a file twice, which a pipe does not let")

    def told(name: str) -> Any:
        try:
            return story(name)
        except ContainerError as error:
            raise explained(error, Path(name)) from error

    return told


def _human(report: Mapping[str, Any]) -> None:
    if not report["broken"]:
        depth = "stored digests hold" if report["quick"] else "ok"
        render.say(f"{report['path']}: {depth} {report['content_root']}")

"""stats: where the bytes are and what compression cost, measured."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from kvq_cli.cli import measured, options, planning, render, suggesting
from kvq_cli.cli.loop import each_input
from kvq_cli.errors import UsageError

EXAMPLES = """\b
Examples:
  kvq stats cache.kvq --against cache.safetensors
  kvq stats cache.safetensors --profile int8 --queries self
  kvq stats cache.safetensors --profile int8 --json
  kvq stats cache.safetensors -p int8 -p int4 -p turboquant-3bit --queries self
  kvq stats cache.safetensors -p int8 -p int4 --queries self --html report.html
  kvq stats cache.safetensors -p int8 -p int4 --queries self --sample 4x2048
  kvq stats cache.safetensors --suggest --budget bounds.json > profile.json
  kvq stats --plan --model llama-3.1-8b --tokens 100000 -p int8 -p kivi-2bit"""


def stats(
    inputs: options.Inputs = None,
    profile: Annotated[
        list[str] | None, typer.Option("-p", "--profile", help="For captures and --plan: what if?")
    ] = None,
    codebook: Annotated[
        list[str] | None,
        typer.Option("--codebook", help="File of a codebook that a profile names."),
    ] = None,
    meta: options.Meta = None,
    layout: options.Layout = None,
    widen: options.Widen = False,
    against: Annotated[
        str | None, typer.Option("--against", help="The capture, to measure what was lost.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option("--queries", help="Queries to measure attention with: a file, or self."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="The calibration that a profile names.")
    ] = None,
    plan: planning.Plan = False,
    model: planning.Model = None,
    layers: planning.Layers = None,
    kv_heads: planning.KvHeads = None,
    tokens: planning.Tokens = None,
    head_dim: planning.HeadDim = None,
    batch: planning.Batch = None,
    dtype: planning.Dtype = None,
    suggest: suggesting.Suggest = False,
    budget: suggesting.Budget = None,
    sample: suggesting.Sample = None,
    html: Annotated[
        str | None, typer.Option("--html", help="Write a page with tables and drawings.")
    ] = None,
    force: options.Force = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Error rows, or those of --plan, as CSV.")
    ] = False,
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
    """Measure a container, or what a profile would make of a capture without keeping it."""
    common = options.Common(
        "stats", json, ndjson, quiet, verbose, not no_progress, color, fail_fast
    )
    geometry = {
        "model": model,
        "layers": layers,
        "kv_heads": kv_heads,
        "tokens": tokens,
        "head_dim": head_dim,
        "batch": batch,
        "dtype": dtype,
    }
    files = {
        "an input": inputs or None,
        "--files-from": files_from,
        "--null": null or None,
        "--meta": meta,
        "--layout": layout,
        "--against": against,
        "--queries": queries,
        "--calibration": calibration,
        "--suggest": suggest or None,
        "--budget": budget,
        "--sample": sample,
        "--html": html,
    }
    planning.check_options(geometry, files, plan=plan)
    if plan:
        return planning.plan_table(profile or [], codebook or [], geometry, common, csv=csv)

    names = options.input_names(inputs, files_from, null=null)
    terms: dict[str, Any] = {
        "meta": options.key_values("--meta", meta),
        "layout": layout,
        "widen": widen,
        "queries": queries,
        "threads": threads,
    }
    if suggest:
        given = {
            "--profile": profile,
            "--against": against,
            "--codebook": codebook,
            "--html": html,
        }
        terms |= {"calibration": calibration}
        suggesting.check_options(given, csv=csv)
        return suggesting.suggestions(names, budget, sample, terms, common)
    if budget:
        raise UsageError("E101", "--budget goes with --suggest")
    terms |= {"codebooks": codebook or [], "against": against, "calibration": calibration}
    terms |= {"sample": sample}
    return _measured(names, profile or [], terms, common, csv=csv, html=html, force=force)


def _measured(
    names: Sequence[str],
    profiles: Sequence[str],
    terms: Mapping[str, Any],
    common: options.Common,
    *,
    csv: bool,
    html: str | None,
    force: bool,
) -> int:
    """Each input under each of the profiles, one after the other."""
    from kvq_cli import pipeline
    from kvq_cli.steps.choose import apart
    from kvq_cli.steps.output import check_output

    files = tuple(map(Path, names))
    if html:
        check_output(Path(html), force=force, inputs=files)
    tries = apart(profiles)
    chosen = iter([each for _ in names for each in tries])
    reports: list[Mapping[str, Any]] = []

    def story(name: str) -> Any:
        progress = render.progress(common, name)
        report = pipeline.stats(name, profiles=next(chosen), progress=progress, **terms)
        reports.append(report.to_json())
        return report

    told = not (common.json or common.ndjson or common.quiet)
    columns = measured.CSV_COLUMNS
    rows = csvlib.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    if csv and told:
        rows.writeheader()

    def human(report: Mapping[str, Any]) -> None:
        if csv:
            rows.writerows(measured.csv_rows(report))
        elif len(tries) == 1:
            measured.tell(report, common)

    code = each_input([name for name in names for _ in tries], story, common, human=human)
    if len(tries) > 1 and reports and told and not csv:
        measured.side_by_side(reports, common)
    if html and reports:
        _write_page(Path(html), reports, files, force=force)
    return code


def _write_page(
    target: Path, reports: Sequence[Mapping[str, Any]], inputs: tuple[Path, ...], *, force: bool
) -> None:
    from kvq_cli.cli.html import page
    from kvq_cli.steps.output import open_output

    with open_output(target, force=force, inputs=inputs) as output:
        output.write(page(reports).encode())


stats.__doc__ = f"{stats.__doc__}\n\n{planning.ABOUT}\n\n{suggesting.ABOUT}\n\n{EXAMPLES}"

"""stats: where the bytes are and what compression cost, measured."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Mapping
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
        "--against": against,
        "--queries": queries,
        "--suggest": suggest or None,
        "--budget": budget,
        "--sample": sample,
    }
    planning.check_options(geometry, files, plan=plan)
    if plan:
        return planning.plan_table(profile or [], codebook or [], geometry, common, csv=csv)

    from kvq_cli import pipeline
    from kvq_cli.steps.choose import apart

    names = options.input_names(inputs, files_from, null=null)
    if suggest:
        suggesting.check_options(profile, against, codebook, csv=csv)
        return suggesting.suggestions(names, budget, queries, sample, threads, common)
    if budget or sample:
        raise UsageError("E101", "--budget and --sample go with --suggest")
    tries = apart(profile or [])
    # Each input under each of the profiles, one after the other.
    chosen = iter([each for _ in names for each in tries])

    def story(name: str) -> Any:
        return pipeline.stats(
            name,
            profiles=next(chosen),
            codebooks=codebook or [],
            against=against,
            queries=queries,
            calibration=calibration,
            threads=threads,
            progress=render.progress(common, name),
        )

    columns = measured.CSV_COLUMNS
    rows = csvlib.DictWriter(sys.stdout, columns, extrasaction="ignore", lineterminator="\n")
    if csv and not (json or ndjson or quiet):
        rows.writeheader()

    reports: list[Mapping[str, Any]] = []

    def human(report: Mapping[str, Any]) -> None:
        reports.append(report)
        if csv:
            path = render.safe(report["path"])
            rows.writerows({"path": path, **row} for row in report["errors"])
            asked = ({"path": path, "role": "query", **row} for row in report["attention"])
            rows.writerows(asked)
        elif len(tries) == 1:
            measured.tell(report, common)

    code = each_input([name for name in names for _ in tries], story, common, human=human)
    if len(tries) > 1 and reports and not csv:
        measured.side_by_side(reports, common)
    return code


stats.__doc__ = f"{stats.__doc__}\n\n{planning.ABOUT}\n\n{suggesting.ABOUT}\n\n{EXAMPLES}"

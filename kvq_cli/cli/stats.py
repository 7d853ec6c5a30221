"""stats: where the bytes are and what compression cost, measured."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from kvq_cli.cli import options, planning, render
from kvq_cli.cli.loop import each_input

EXAMPLES = """\b
Examples:
  kvq stats cache.kvq --against cache.safetensors
  kvq stats cache.safetensors --profile int8 --queries self
  kvq stats cache.safetensors --profile int8 --json
  kvq stats --plan --model llama-3.1-8b --tokens 100000 -p int8 -p kivi-2bit"""

PROBES = {"capture": "the capture's", "file": "the file's", "self": "the last keys of each head"}
METRICS = ("relative_mse", "snr_db", "cosine", "max_error", "mae")
ATTENTION = (
    "attention_tv", "attention_kl", "topk_disagreement", "logit_mse", "value_aggregation_mse",
    "attention_cosine",
)  # fmt: skip
CSV_COLUMNS = (
    "path", "role", "layer", "head", *METRICS, "mse", "elements", "non_finite", "queries",
    *ATTENTION,
)  # fmt: skip


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
    plan: planning.Plan = False,
    model: planning.Model = None,
    layers: planning.Layers = None,
    kv_heads: planning.KvHeads = None,
    tokens: planning.Tokens = None,
    head_dim: planning.HeadDim = None,
    batch: planning.Batch = None,
    dtype: planning.Dtype = None,
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
    }
    planning.check_options(geometry, files, plan=plan)
    if plan:
        return planning.plan_table(profile or [], codebook or [], geometry, common, csv=csv)

    from kvq_cli import pipeline

    names = options.input_names(inputs, files_from, null=null)

    def story(name: str) -> Any:
        return pipeline.stats(
            name,
            profiles=profile or [],
            codebooks=codebook or [],
            against=against,
            queries=queries,
            threads=threads,
            progress=render.progress(common, name),
        )

    rows = csvlib.DictWriter(sys.stdout, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    if csv and not (json or ndjson or quiet):
        rows.writeheader()

    def human(report: Mapping[str, Any]) -> None:
        if csv:
            path = render.safe(report["path"])
            rows.writerows({"path": path, **row} for row in report["errors"])
            asked = ({"path": path, "role": "query", **row} for row in report["attention"])
            rows.writerows(asked)
        else:
            _text(report, common)

    return each_input(names, story, common, human=human)


stats.__doc__ = f"{stats.__doc__}\n\n{planning.ABOUT}\n\n{EXAMPLES}"


def _text(report: Mapping[str, Any], common: options.Common) -> None:
    bits = report["bits_per_element"]
    render.say(
        f"{report['path']}: {render.size(report['source_bytes'])} of tensors in "
        f"{render.size(report['file_bytes'])}, ratio {report['ratio']:.3f} vs "
        f"{report['ratio_against']}" + (f", {bits:.3f} bits per element" if bits else "")
    )
    whole = report["file_bytes"]
    rows = [[part, count, f"{count / whole:.2%}"] for part, count in report["parts"].items()]
    render.table(common, ("part", "bytes", "of file"), [*rows, ["file", whole, "100.00%"]])
    rows = [
        [each["name"], each["packed"], each["stored"], f"{_part(each):.2%}"]
        for each in report["planes"]
    ]
    render.table(common, ("plane", "packed", "stored", "of packed"), rows)
    for reason, count in report["raw_pages"].items():
        render.say(f"raw pages: {count} {reason}")
    for note in report["notes"]:
        render.say(f"note: {note}")
    _rows(report["errors"], ("role", "layer", "head"), METRICS, common)
    if report["probe"]:
        render.say(f"attention, queries: {PROBES[report['probe']['kind']]}")
    _rows(report["attention"], ("layer", "head", "queries"), ATTENTION, common)


def _rows(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    metrics: Sequence[str],
    common: options.Common,
) -> None:
    """The rows over everything; with --verbose those of layers and heads too."""
    cells = [
        [*(_told(row[key], "all") for key in keys), *(_told(row[name], "-") for name in metrics)]
        for row in rows
        if common.verbose or row["layer"] is None
    ]
    if cells:
        render.table(common, (*keys, *metrics), cells)


def _told(value: object, missing: str) -> object:
    return missing if value is None else value


def _part(plane: Mapping[str, Any]) -> float:
    return plane["stored"] / plane["packed"] if plane["packed"] else 1.0

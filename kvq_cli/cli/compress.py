"""compress: captures become containers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.cli.targets import output_for

EXAMPLES = """\b
Examples:
  kvq compress cache.safetensors
  kvq compress dumps/*.safetensors --profile int8 -o packed/
  kvq compress vllm-dump/ --layout vllm --profile int8"""


def compress(
    inputs: options.Inputs = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("-p", "--profile", help="Built-in name or JSON file; default lossless."),
    ] = None,
    codebook: Annotated[
        list[str] | None,
        typer.Option("--codebook", help="File of a codebook that a profile names."),
    ] = None,
    meta: options.Meta = None,
    shape: Annotated[str | None, typer.Option("--shape", help="Shape JSON it must have.")] = None,
    layout: options.Layout = None,
    widen: options.Widen = False,
    queries: Annotated[
        str | None,
        typer.Option("--queries", help="Queries for a quality budget: a file, or self."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="The calibration that a profile names.")
    ] = None,
    refer: Annotated[
        bool, typer.Option("--refer", help="Refer to the calibration, do not hold its table.")
    ] = False,
    level: Annotated[int | None, typer.Option("--level", help="zstd level, 1 to 22.")] = None,
    align: Annotated[int | None, typer.Option("--align", help="Chunk alignment in bytes.")] = None,
    continues: Annotated[
        list[str] | None,
        typer.Option("--continues", help="Container whose tokens come before these."),
    ] = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="With --continues: the capture holds those tokens too."),
    ] = False,
    output: options.Output = None,
    force: options.Force = False,
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
    """Compress captures into containers. Without a profile nothing is lost."""
    from kvq_cli import pipeline
    from kvq_cli.steps.inputs import default_target

    common = options.Common(
        "compress", json, ndjson, quiet, verbose, not no_progress, color, fail_fast
    )
    names = options.input_names(inputs, files_from, null=null)
    to = output_for(names, output, default_target)
    told = options.key_values("--meta", meta)

    def story(name: str) -> Any:
        return pipeline.compress(
            name,
            to(name),
            profiles=profile or [],
            codebooks=codebook or [],
            meta=told,
            shape=shape,
            layout=layout,
            widen=widen,
            queries=queries,
            calibration=calibration,
            refer=refer,
            level=level,
            alignment=align,
            continues=continues or [],
            full=full,
            threads=threads,
            force=force,
            progress=render.progress(common, name),
        )

    piped = any(to(name) == Path("-") for name in names)
    return each_input(names, story, common, human=_human(common), data_on_stdout=piped)


compress.__doc__ = f"{compress.__doc__}\n\n{EXAMPLES}"


def _human(common: options.Common) -> Any:
    def human(report: Mapping[str, Any]) -> None:
        raw = ", ".join(f"{count} {reason}" for reason, count in report["raw_pages"].items())
        render.say(
            f"{report['path']} -> {report['output']}: {render.size(report['source_bytes'])} -> "
            f"{render.size(report['file_bytes'])}, ratio {report['ratio']:.3f} "
            f"vs {report['ratio_against']}" + (f"; raw pages: {raw}" if raw else ""),
            err=True,
        )
        for note in report["notes"]:
            render.say(f"{report['path']}: note: {note}", err=True)
        if common.verbose:
            for profile in report["profiles"]:
                roles = "+".join(profile["roles"])
                render.say(f"  {roles}: profile {profile['name']} {profile['digest']}", err=True)
            packed, stored = report["packed_bytes"], report["stored_bytes"]
            saved = f"{render.size(packed - stored)} of {render.size(packed)}"
            render.say(f"  entropy coding saved {saved}", err=True)
            render.say(f"  content_root {report['content_root']}", err=True)

    return human

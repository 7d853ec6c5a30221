"""transform: the command `kvq calibrate`, which makes calibrations for the codec transform."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.errors import UsageError

EXAMPLES = """\b
Examples:
  kvq calibrate texts/*.safetensors -o model.kvqcal
  kvq calibrate a.safetensors b.safetensors --layers 5 -o model.kvqcal
  kvq calibrate a.safetensors --queries a.query.safetensors -o model.kvqcal"""
ABOUT = (
    "Captures should be of many texts, unlike each other and what will be compressed, each with "
    "its queries, or NAME.query.safetensors beside it."
)
AUTO = "auto"
WEIGHTS = ("queries", "self", "variance")


def calibrate(
    inputs: Annotated[
        list[str] | None, typer.Argument(help="Captures of one model.", show_default=False)
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output file; - is standard output.")
    ] = None,
    queries: Annotated[
        list[str] | None,
        typer.Option("--queries", help="File of a capture's queries; once for each, in order."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", help="What errors count by: queries, self or variance."),
    ] = None,
    layers: Annotated[
        str, typer.Option("--layers", help="Layers that are transformed together, or auto.")
    ] = "1",
    skip: Annotated[
        int, typer.Option("--skip", help="First tokens of each capture that are left out.")
    ] = 4,
    rank: Annotated[
        float, typer.Option("--rank", help="Share of the components that is kept at most.")
    ] = 1.0,
    meta: options.Meta = None,
    layout: options.Layout = None,
    force: options.Force = False,
    threads: options.Threads = 0,
    json: options.Json = False,
    ndjson: options.NdJson = False,
    quiet: options.Quiet = False,
    no_progress: options.NoProgress = False,
    files_from: options.FilesFrom = None,
    null: options.Nul = False,
) -> int:
    """Learn transforms from captures of one model, for profiles that use the codec transform."""
    from kvq_cli import pipeline
    from kvq_cli.steps.transformed import Setting

    common = options.Common("calibrate", json, ndjson, quiet, progress=not no_progress)
    names = options.input_names(inputs, files_from, null=null)
    if output is None:
        raise UsageError("E101", "no output; name a file with -o")
    if "-" in names:
        raise UsageError("E101", "captures are read more than once, standard input is not")
    if queries and len(queries) != len(names):
        found = f"{len(queries)} files of queries, {len(names)} captures"
        raise UsageError("E101", f"--queries: {found}; name one for each, in their order")
    setting = Setting(_weights(weights), _layers(layers), _skip(skip), _rank(rank))
    target = output if output == "-" else options.file_name(output)

    def story(name: str) -> Any:
        return pipeline.calibrate_transform(
            names,
            name,
            setting=setting,
            queries=queries or (),
            meta=options.key_values("--meta", meta),
            layout=layout,
            threads=threads,
            force=force,
            progress=render.progress(common, name),
        )

    return each_input([target], story, common, human=_human, data_on_stdout=target == "-")


calibrate.__doc__ = f"{calibrate.__doc__}\n\n{ABOUT}\n\n{EXAMPLES}"


def _weights(text: str | None) -> str | None:
    if text not in (None, *WEIGHTS):
        raise UsageError("E101", f"--weights {text}: {', '.join(WEIGHTS)} are expected")
    return text


def _layers(text: str) -> int:
    if text == AUTO:
        return 0
    if not text.isdecimal() or not 0 < int(text[:5]) <= 4096:
        raise UsageError("E101", f"--layers {text}: a number from 1 to 4096, or {AUTO}")
    return int(text)


def _skip(count: int) -> int:
    if not 0 <= count < 1 << 30:
        raise UsageError("E101", f"--skip {count}: a number of tokens is expected")
    return count


def _rank(share: float) -> float:
    if not 0 < share <= 1:
        raise UsageError("E101", f"--rank {share}: a share above 0, at most 1")
    return share


def _human(report: Mapping[str, Any]) -> None:
    groups = report["groups"]
    largest = max(groups, key=lambda each: int(each["dimensions"]))
    whole = sum(each["dimensions"] for each in groups)
    kept = 100 * sum(each["rank"] for each in groups) / whole
    render.say(
        f"{report['output']}: {report['tokens']} tokens of {report['captures']} captures, "
        f"{len(groups)} groups of at most {largest['layers']} layers and "
        f"{largest['dimensions']} dimensions, {kept:.0f} % of the components, weights by "
        f"{report['weights']}",
        err=True,
    )
    for each in report["held_out"]:
        render.say(
            f"  {each['role']:6} {each['bits_per_element']:.3f} bits an element at a step of "
            f"{each['step']} on tokens held out, {each['plain_bits_per_element']:.3f} without "
            "a transform",
            err=True,
        )
    size, table = render.size(report["file_bytes"]), render.size(report["basis_bytes"])
    render.say(f"  {size}, of which the basis table is {table}", err=True)
    render.say(f"  {report['digest']}", err=True)
    for note in report["notes"]:
        render.say(f"{report['path']}: note: {note}", err=True)

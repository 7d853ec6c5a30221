"""inspect: what a file is, from its headers."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.cli.missing import say_lost
from kvq_cli.cli.sums import sum_line
from kvq_cli.errors import UsageError

EXAMPLES = """\b
Examples:
  kvq inspect cache.kvq --pages
  kvq inspect cache.safetensors profile.json --json
  kvq inspect --guess odd.safetensors > map.json"""

LISTED = 8  # tensors that are named unasked
TOLD = 32  # lines of metadata
PAGE_COLUMNS = (
    "role",
    "batch",
    "layer",
    "tokens",
    "heads",
    "codec",
    "reason",
    "offset",
    "stored",
    "packed",
)


def inspect(
    inputs: options.Inputs = None,
    pages: Annotated[bool, typer.Option("--pages", help="List the pages.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List the tensors.")] = False,
    guess: Annotated[
        bool, typer.Option("--guess", help="Propose a layout map for a capture.")
    ] = False,
    meta: options.Meta = None,
    layout: options.Layout = None,
    sums: Annotated[bool, typer.Option("--sums", help="Lines for verify --check.")] = False,
    json: options.Json = False,
    ndjson: options.NdJson = False,
    quiet: options.Quiet = False,
    color: options.ColorWhen = options.Color.AUTO,
    fail_fast: options.FailFast = False,
    files_from: options.FilesFrom = None,
    null: options.Nul = False,
) -> int:
    """Say what files are: containers, captures, profiles, calibrations. Page data is not read."""
    from kvq_cli.steps import describe

    common = options.Common("inspect", json, ndjson, quiet, color=color, fail_fast=fail_fast)
    names = options.input_names(inputs, files_from, null=null)
    told = options.key_values("--meta", meta)

    if guess and len(names) > 1 and not (json or ndjson):
        raise UsageError("E101", "--guess takes one capture")

    def human(report: Mapping[str, Any]) -> None:
        if sums:
            if report["kind"] == "container":
                render.say(sum_line(report["content_root"], report["path"]))
            return
        {
            "container": _container,
            "capture": _capture,
            "guess": _guess,
            "transform": _transform,
        }.get(report["kind"], _profile)(report, common)

    def story(name: str) -> Any:
        if guess:
            from kvq_cli.steps.guessed import guess as guessed

            return guessed(name)
        return describe.inspect(name, pages=pages, tensors=tensors, meta=told, layout=layout)

    return each_input(names, story, common, human=human)


inspect.__doc__ = f"{inspect.__doc__}\n\n{EXAMPLES}"


def _container(report: Mapping[str, Any], common: options.Common) -> None:
    render.say(
        f"{report['path']}: {report['format']}, {render.size(report['file_bytes'])}, ratio "
        f"{report['ratio']:.3f} vs source, {report['page_count']} pages, layout {report['layout']}"
    )
    for word in ("content_root", "file_root"):
        render.say(f"  {word:12} {report[word]}")
    if report["continues"]:
        render.say(f"  continues    {report['continues']}, from token {report['token_offset']}")
    if report["partial"]:
        render.say(f"  partial      of {report['partial']['content_root'] or 'an unknown root'}")
        say_lost(report["partial"]["lost"])
    for each in report["profiles"]:
        name = each["profile"].get("name", each["profile"].get("profile_id", ""))
        render.say(f"  profile      {'+'.join(each['roles'])}: {name} {each['digest']}")
    for key, text in report["identity"].items():
        render.say(f"  {key:12} {text}")
    _parts(report["parts"])
    if report["calibration_digest"]:
        render.say(f"  calibration  {report['calibration_digest']}")
    elsewhere = report["storage"].get("referenced", [])
    for each in report["tables"]:
        where = ", in the calibration" if each["digest"] in elsewhere else ""
        render.say(f"  table        {each['dtype']} {each['shape']} {each['digest']}{where}")
    for reason, count in report["raw_reasons"].items():
        render.say(f"  raw pages    {count} {reason}")
    _tensors(report, common)
    if "pages" in report:
        rows = [[_cell(value) for value in _page(page)] for page in report["pages"]]
        render.table(common, PAGE_COLUMNS, rows)


def _page(page: Mapping[str, Any]) -> list[object]:
    """A row of the table; several layers are a range."""
    several = {"layer": [[page["layer"], page["layer"] + page["layers"]]]}
    shown = {**page, **(several if page["layers"] > 1 else {})}
    return [shown[column] for column in PAGE_COLUMNS]


def _capture(report: Mapping[str, Any], common: options.Common) -> None:
    layout = report["layout"] or "not recognised"
    files = f"{len(report['files'])} files, " if "files" in report else ""
    doubt = ", in doubt" if report.get("doubt") else ""
    render.say(
        f"{report['path']}: {report['format']}, {files}{render.size(report['file_bytes'])}, "
        f"layout {layout}{doubt}"
    )
    told = list(report["metadata"].items())
    for key, text in told[:TOLD]:
        render.say(f"  {key:14} {text}")
    if len(told) > TOLD:
        render.say(f"  {'metadata':14} {len(told) - TOLD} more, which --json lists")
    _parts(report.get("parts", []))
    others = report.get("other_tensors", [])
    for name in others[:LISTED]:
        render.say(f"  other tensor   {name}")
    if len(others) > LISTED:
        render.say(f"  other tensors  {len(others) - LISTED} more, which --tensors lists")
    for note in report["notes"]:
        render.say(f"  note           {note}")
    _tensors(report, common)


def _transform(report: Mapping[str, Any], common: options.Common) -> None:
    del common
    groups, told = report["groups"], report["metadata"]
    layers = max((each["layers"] for each in groups), default=0)
    render.say(
        f"{report['path']}: {report['format']}, {render.size(report['file_bytes'])}, "
        f"{len(groups)} groups of at most {layers} layers"
    )
    render.say(f"  {'digest':12} {report['digest']}")
    render.say(f"  {'basis':12} {report['basis_digest']}, {render.size(report['basis_bytes'])}")
    for key in ("model", "architecture", "rope_state", "tokens", "weights"):
        if key in told:
            render.say(f"  {key:12} {told[key]}")


def _profile(report: Mapping[str, Any], common: options.Common) -> None:
    del common
    digest = report.get("digest", "")
    render.say(f"{report['path']}: {report['format']} {digest}".rstrip())
    print(jsonlib.dumps(report[report["kind"]], indent=2))


def _guess(report: Mapping[str, Any], common: options.Common) -> None:
    """The map alone on standard output, so that it can be kept as it is."""
    del common
    rules = ",\n  ".join(jsonlib.dumps(rule) for rule in report["layout_map"]["rules"])
    print(f'{{"schema": "{report["layout_map"]["schema"]}",\n "rules": [\n  {rules}]}}')
    notes = list(report["doubts"])
    if report["layout"]:
        notes.append(f"layout {report['layout']} fits, no map is needed")
    if not report["complete"]:
        notes.append("the map cannot be used as it is")
    for note in notes:
        render.say(f"{report['path']}: note: {note}", err=True)


def _parts(parts: list[Mapping[str, Any]]) -> None:
    for part in parts:
        for role in ("key", "value"):
            found = part.get(role)
            if found is None:
                continue
            shape = found.get("shape", found)
            digest = found.get("shape_digest")
            render.say(
                f"  {role:5}        layers {_cell(part['layers'])}: batch {shape['batch']}, "
                f"{shape['kv_heads']} kv heads, {shape['tokens']} tokens, head_dim "
                f"{shape['head_dim']}, {shape['dtype']}" + (f", shape {digest}" if digest else "")
            )


def _tensors(report: Mapping[str, Any], common: options.Common) -> None:
    if "tensors" in report:
        rows = [[each["name"], each["dtype"], each["shape"]] for each in report["tensors"]]
        render.table(common, ("tensor", "dtype", "shape"), rows)


def _cell(value: object) -> object:
    if isinstance(value, list):
        return ",".join(":".join(map(str, e)) if isinstance(e, list) else str(e) for e in value)
    return value

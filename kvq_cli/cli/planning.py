"""planning: what `stats --plan` takes and prints: sizes of a cache that is not there, computed."""

from __future__ import annotations

import csv as csvlib
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, TypeAlias

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.errors import UsageError
from kvq_cli.steps.geometry import MODELS

ABOUT = "With --plan: compute the size of a cache from its geometry, a row for each profile."
TOTALS = ("packed_bytes", "container_bytes", "ratio", "bits_per_element")
CSV_COLUMNS = ("path", "role", "layer", "codecs", "source_bytes", "float32_bytes", *TOTALS)
LAYER_COLUMNS = ("role", "layers", "codecs", "packed in each", "bits/element")


class DTypeName(StrEnum):
    """What --dtype takes."""

    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"


Plan: TypeAlias = Annotated[
    bool, typer.Option("--plan", help="Compute sizes instead, of a cache of this geometry.")
]
Model: TypeAlias = Annotated[
    str | None, typer.Option("--model", help=f"For --plan: {', '.join(MODELS)}.")
]
Layers: TypeAlias = Annotated[int | None, typer.Option("--layers", help="For --plan.")]
KvHeads: TypeAlias = Annotated[int | None, typer.Option("--kv-heads", help="For --plan.")]
Tokens: TypeAlias = Annotated[int | None, typer.Option("--tokens", help="For --plan.")]
HeadDim: TypeAlias = Annotated[int | None, typer.Option("--head-dim", help="For --plan.")]
Batch: TypeAlias = Annotated[int | None, typer.Option("--batch", help="For --plan; else 1.")]
Dtype: TypeAlias = Annotated[
    DTypeName | None, typer.Option("--dtype", help="For --plan; else the model's, or f16.")
]


def check_options(
    geometry: Mapping[str, object], files: Mapping[str, object], *, plan: bool
) -> None:
    """UsageError where options that tell a geometry meet what is read from files."""
    given = [name for name, value in (files if plan else geometry).items() if value is not None]
    if given and plan:
        raise UsageError("E101", f"{given[0]} does not go with --plan, which measures nothing")
    if given:
        raise UsageError("E101", f"--{given[0].replace('_', '-')} goes with --plan")


def plan_table(
    profiles: Sequence[str],
    codebooks: Sequence[str],
    geometry: Mapping[str, Any],
    common: options.Common,
    *,
    csv: bool,
) -> int:
    """A row for each profile, or for each of the built-in ones."""
    from kvq_cli import advice
    from kvq_cli.profile import builtin_names
    from kvq_cli.steps.geometry import geometry_of

    cache = geometry_of(**geometry)

    def story(name: str) -> Any:
        return advice.plan_stats(name, cache, codebooks=codebooks)

    reports: list[Mapping[str, Any]] = []
    rows = csvlib.DictWriter(sys.stdout, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    if csv and not (common.json or common.ndjson or common.quiet):
        rows.writeheader()

    def human(report: Mapping[str, Any]) -> None:
        reports.append(report)
        if csv:
            rows.writerows(_csv_rows(report))

    code = each_input(profiles or builtin_names(), story, common, human=human)
    if reports and not csv:
        _text(reports, common)
    return code


def _text(reports: Sequence[Mapping[str, Any]], common: options.Common) -> None:
    first = reports[0]
    render.say(f"computed, not measured: {_told(first['geometry'])}")
    render.say(
        f"{render.size(first['source_bytes'])} of tensors, {render.size(first['float32_bytes'])} "
        "as f32; sizes are before entropy coding"
    )
    ratio = f"ratio vs {first['ratio_against']}"
    header = ("profile", "packed", "container", ratio, "bits/element")
    render.table(common, header, [_row(report) for report in reports])
    if common.verbose:
        rows = [[report["path"], *row] for report in reports for row in _alike(report["layers"])]
        render.table(common, ("profile", *LAYER_COLUMNS), rows)
    for report in reports:
        for note in report["notes"]:
            render.say(f"note: {report['path']}: {note}")


def _told(geometry: Mapping[str, Any]) -> str:
    model = f"{geometry['model']}, " if geometry["model"] else ""
    return (
        f"{model}{geometry['layers']} layers, {geometry['kv_heads']} kv heads, "
        f"{geometry['tokens']} tokens, head_dim {geometry['head_dim']}, batch {geometry['batch']}, "
        f"{geometry['dtype']}"
    )


def _row(report: Mapping[str, Any]) -> list[object]:
    sizes = (render.size(report[name]) for name in ("packed_bytes", "container_bytes"))
    return [report["path"], *sizes, f"{report['ratio']:.3f}", f"{report['bits_per_element']:.3f}"]


def _alike(layers: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    """Layers of a role that take the same in one row."""
    from kvq_cli.words import spans

    alike: dict[tuple[Any, ...], list[int]] = {}
    for each in layers:
        bits = f"{each['bits_per_element']:.3f}"
        told = (each["role"], _joined(each["codecs"]), each["packed"], bits)
        alike.setdefault(told, []).append(each["layer"])
    return [
        [role, ",".join(f"{start}:{stop}" for start, stop in spans(numbers)), *told]
        for (role, *told), numbers in alike.items()
    ]


def _csv_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The whole first, then every role and layer."""
    path = render.safe(report["path"])
    layers = [
        {**each, "codecs": _joined(each["codecs"]), "packed_bytes": each["packed"]}
        for each in report["layers"]
    ]
    return [{**row, "path": path} for row in (report, *layers)]


def _joined(codecs: Sequence[str]) -> str:
    return "+".join(codecs)

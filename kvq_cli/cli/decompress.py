"""decompress: containers become safetensors files again, whole or in part."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from kvq_cli.cli import options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.cli.missing import say_lost
from kvq_cli.cli.targets import output_for

EXAMPLES = """\b
Examples:
  kvq decompress cache.safetensors.kvq
  kvq decompress cache.kvq --expect model=org/name --expect dtype=f16
  kvq decompress cache.kvq --layers 0:4 --tokens -128: --dtype f32 -o tail.safetensors"""


class RoleName(StrEnum):
    """What --role takes."""

    KEY = "key"
    VALUE = "value"


class LayoutName(StrEnum):
    """What --layout takes."""

    SOURCE = "source"
    CANONICAL = "canonical"
    HF = "hf"
    MLX = "mlx"
    MLX_031 = "mlx-0.31"
    VLLM = "vllm"
    VLLM_SPLIT = "vllm_split"
    VLLM_CPU = "vllm_cpu"
    VLLM_MLA = "vllm_mla"
    LMCACHE = "lmcache"


class DTypeName(StrEnum):
    """What --dtype takes."""

    SOURCE = "source"
    F16 = "f16"
    BF16 = "bf16"
    F32 = "f32"


class FillName(StrEnum):
    """What --partial takes."""

    ZERO = "zero"
    NAN = "nan"


def decompress(
    inputs: options.Inputs = None,
    role: Annotated[RoleName | None, typer.Option("--role", help="Only this role.")] = None,
    layers: Annotated[str | None, typer.Option("--layers", help="Such as 0:4,30.")] = None,
    heads: Annotated[str | None, typer.Option("--heads", help="KV heads, such as 0,2.")] = None,
    tokens: Annotated[
        str | None, typer.Option("--tokens", help="Such as 0,5,100:200 or -128:.")
    ] = None,
    layout: Annotated[
        LayoutName, typer.Option("--layout", help="Layout of the output.")
    ] = LayoutName.SOURCE,
    dtype: Annotated[
        DTypeName, typer.Option("--dtype", help="Element type of keys and values.")
    ] = DTypeName.SOURCE,
    partial: Annotated[
        FillName | None,
        typer.Option("--partial", help="What stands for rows that a partial container lacks."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option("--calibration", help="Calibration that a container refers to.")
    ] = None,
    expect: options.Expect = None,
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
    """Restore captures. Unsliced, in its own layout and dtype, the output has the source's header
    and layout; from a lossless container it is the original file, byte for byte.

    A container that continues the one before it is joined to it."""
    from kvq_cli import pipeline
    from kvq_cli.steps.identity import check_keys
    from kvq_cli.steps.inputs import default_restored
    from kvq_cli.steps.joining import grouped
    from kvq_cli.steps.lost import Fill
    from kvq_cli.steps.select import Selection, parse_choice
    from kvq_cli.words import DType, Role

    common = options.Common(
        "decompress", json, ndjson, quiet, verbose, not no_progress, color, fail_fast
    )
    groups = grouped(options.input_names(inputs, files_from, null=null))
    names = list(groups)
    to = output_for(names, output, default_restored)
    wanted = options.key_values("--expect", expect)
    check_keys(wanted)
    selection = Selection(
        roles=tuple(Role) if role is None else (Role[role.name],),
        chosen_layers=parse_choice(layers, "layer"),
        chosen_heads=parse_choice(heads, "head"),
        chosen_tokens=parse_choice(tokens, "token"),
    )

    def story(name: str) -> Any:
        return pipeline.decompress(
            name,
            to(name),
            then=groups[name],
            selection=selection,
            layout=layout.value,
            dtype=None if dtype is DTypeName.SOURCE else DType[dtype.name],
            identity=wanted,
            calibration=calibration,
            partial=None if partial is None else Fill[partial.name],
            threads=threads,
            force=force,
            progress=render.progress(common, name),
        )

    piped = output == "-" or (output is None and "-" in names)
    return each_input(names, story, common, human=_human, data_on_stdout=piped)


decompress.__doc__ = f"{decompress.__doc__}\n\n{EXAMPLES}"


def _human(report: Mapping[str, Any]) -> None:
    render.say(
        f"{report['path']} -> {report['output']}: {render.size(report['file_bytes'])} -> "
        f"{render.size(report['output_bytes'])}",
        err=True,
    )
    for each in report["lost"]:
        render.say(
            f"{report['path']}: note: filled with {report['fill']} is what is lost", err=True
        )
        say_lost(each, err=True)

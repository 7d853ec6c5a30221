"""options: the arguments and options that commands share."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

from kvq_cli.errors import UsageError
from kvq_cli.record import record


class Color(StrEnum):
    """When reports are coloured."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


Inputs: TypeAlias = Annotated[
    list[str] | None, typer.Argument(help="Input files; - is standard input.", show_default=False)
]
Output: TypeAlias = Annotated[
    str | None,
    typer.Option("-o", "--output", help="Output file, or a folder; - is standard output."),
]
Force: TypeAlias = Annotated[
    bool, typer.Option("-f", "--force", help="Replace outputs; binary to a terminal.")
]
Meta: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--meta", help="KEY=VALUE that the capture lacks, such as kv_heads=8."),
]
Layout: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--layout", help="Layout of the capture, or a map of it: FILE.json.", show_default=False
    ),
]
Widen: TypeAlias = Annotated[
    bool, typer.Option("--widen", help="Take 8-bit floats as F16, to be quantised anew.")
]
Threads: TypeAlias = Annotated[
    int,
    typer.Option(
        "-T", "--threads", envvar="KVQ_THREADS", help="0 is all. Bytes never depend on it."
    ),
]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="One JSON report of all inputs.")]
NdJson: TypeAlias = Annotated[bool, typer.Option("--ndjson", help="One JSON line an input.")]
Quiet: TypeAlias = Annotated[bool, typer.Option("-q", "--quiet", help="Errors only.")]
Verbose: TypeAlias = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
NoProgress: TypeAlias = Annotated[bool, typer.Option("--no-progress", help="No progress bar.")]
ColorWhen: TypeAlias = Annotated[Color, typer.Option("--color", help="Colour in reports.")]
FailFast: TypeAlias = Annotated[
    bool, typer.Option("--fail-fast", help="Stop at the first input that fails.")
]
FilesFrom: TypeAlias = Annotated[
    str | None, typer.Option("--files-from", help="Read input names from a file; - is stdin.")
]
Expect: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--expect", help="KEY=VALUE it must say, such as model=NAME or kv_heads=8."),
]
Nul: TypeAlias = Annotated[
    bool, typer.Option("-0", "--null", help="Names in --files-from end with NUL.")
]


@record
class Common:
    """What every command's loop needs to know."""

    command: str
    json: bool = False
    ndjson: bool = False
    quiet: bool = False
    verbose: bool = False
    progress: bool = True
    color: Color = Color.AUTO
    fail_fast: bool = False


def input_names(inputs: list[str] | None, files_from: str | None, *, null: bool) -> list[str]:
    """The inputs on the command line, then those in --files-from."""
    names = list(inputs or [])
    if files_from == "-" and "-" in names:
        raise UsageError("E101", "standard input is named twice")
    if files_from is not None:
        names += _listed(files_from, b"\0" if null else b"\n")
    elif null:
        raise UsageError("E101", "-0 goes with --files-from")
    if not names:
        raise UsageError("E101", "no input; name a file, or - for standard input")
    if names.count("-") > 1:
        raise UsageError("E101", "standard input is named twice")
    return [name if name == "-" else file_name(name) for name in names]


def key_values(option: str, pairs: list[str] | None) -> dict[str, str]:
    """What an option of KEY=VALUE says; only the first = counts, and a key is named once."""
    told: dict[str, str] = {}
    for pair in pairs or []:
        key, _, text = pair.partition("=")
        if not key or not text:
            raise UsageError("E101", f"{option} {pair}: KEY=VALUE is expected")
        if key in told:
            raise UsageError("E101", f"{option} {key} is named twice")
        told[key] = text
    return told


def file_name(name: str) -> str:
    """A name that stays a file's: a path forgets the ./ that tells a file from a stream."""
    return os.path.abspath(name) if os.path.normpath(name) == "-" else name


def _listed(source: str, separator: bytes) -> list[str]:
    if source == "-":
        with os.fdopen(os.dup(0), "rb") as file:
            raw = file.read()
    else:
        with open(source, "rb") as file:
            raw = file.read()
    return [os.fsdecode(name) for name in raw.split(separator) if name]

"""profile bind: a KV profile of fib_quant for one role of a capture."""

from __future__ import annotations

import json as jsonlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from kvq_cli.cli import options


class RoleWord(StrEnum):
    """Which half of the cache."""

    KEY = "key"
    VALUE = "value"


class AxisPolicy(StrEnum):
    """What a vector is, in the words of KV profiles."""

    RAW = "raw"
    PER_TOKEN = "per_token"  # noqa: S105 - no password
    PER_CHANNEL = "per_channel"
    KIVI = "role_aware_kivi_style"


class Mode(StrEnum):
    """What happens to vectors that have no code."""

    KEEP_RAW = "keep_raw"
    FAIL_CLOSED = "fail_closed"


def bind(
    capture: Annotated[str, typer.Argument(help="Capture whose shape the profile is for.")],
    role: Annotated[RoleWord, typer.Option("--role", help="Keys or values.")],
    block: Annotated[int, typer.Option("--block", help="Channels of a codeword.")] = 4,
    size: Annotated[int, typer.Option("--size", help="Codewords; a power of two.")] = 256,
    seed: Annotated[int, typer.Option("--seed", help="Of rotation and codebook.")] = 42,
    axis: Annotated[
        AxisPolicy, typer.Option("--axis", help="What a vector is.")
    ] = AxisPolicy.PER_TOKEN,
    page_tokens: Annotated[int, typer.Option("--page-tokens", help="Tokens a page.")] = 256,
    first_raw: Annotated[int, typer.Option("--first-raw", help="First tokens kept raw.")] = 0,
    last_raw: Annotated[int, typer.Option("--last-raw", help="Last tokens kept raw.")] = 0,
    fallback: Annotated[
        Mode, typer.Option("--fallback", help="For what has no code.")
    ] = Mode.KEEP_RAW,
    name: Annotated[str | None, typer.Option("--id", help="The profile's id.")] = None,
    meta: options.Meta = None,
    layout: options.Layout = None,
    shape: Annotated[str | None, typer.Option("--shape", help="Shape JSON it must have.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output file; - is standard output.")
    ] = None,
    force: options.Force = False,
) -> int:
    """Make a fib_quant KV profile for a capture; many codewords take long to train.

    \b
    Examples:
      kvq profile bind cache.safetensors --role key -o key.json
      kvq profile bind cache.safetensors --role value --size 1024 > value.json
    """
    from kvq_cli.steps.bind import Terms, bind_profile
    from kvq_cli.words import Role

    terms = Terms(block, size, seed, axis, page_tokens, first_raw, last_raw, fallback, name)
    profile = bind_profile(
        capture,
        Role[role.name],
        terms,
        meta=options.key_values("--meta", meta),
        shape=shape,
        layout=layout,
    )
    text = jsonlib.dumps(_json(profile), indent=2) + "\n"
    if output is None:
        print(text, end="")
    else:
        _write(Path(output), text, Path(capture), force=force)
    return 0


def _json(profile: Any) -> dict[str, Any]:
    value: dict[str, Any] = profile.to_json()
    return value


def _write(path: Path, text: str, capture: Path, *, force: bool) -> None:
    from kvq_cli.steps.output import open_output

    with open_output(path, force=force, inputs=(capture,)) as target:
        target.write(text.encode())

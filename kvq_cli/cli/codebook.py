"""profile codebook: a codebook for the codec fibquant, trained for other numbers."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from kvq_cli.cli import options, render


def codebook(
    channels: Annotated[int, typer.Option("--channels", help="Channels of a row (head_dim).")],
    block: Annotated[int, typer.Option("--block", help="Coordinates of a codeword.")],
    size: Annotated[int, typer.Option("--size", help="Codewords; a power of two.")],
    seed: Annotated[int, typer.Option("--seed", help="Of the training.")] = 0,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output file; - is standard output.")
    ] = None,
    force: options.Force = False,
) -> int:
    """Train a codebook for rows that none of the built-in ones is for.

    A profile names it by its digest, {"name": "fibquant", "block": K, "size": N, "codebook":
    "blake3:..."}, and --codebook gives the file to compress and stats. Containers hold it.

    \b
    Examples:
      kvq profile codebook --channels 112 --block 4 --size 512 -o book.json
      kvq compress cache.safetensors --profile mine.json --codebook book.json
    """
    from kvq_cli.steps.books import make_codebook
    from kvq_cli.steps.output import open_output

    made = make_codebook(channels, block, size, seed)
    rows = ",\n  ".join(jsonlib.dumps(row) for row in made.pop("codewords"))
    head = jsonlib.dumps(made, indent=1)[:-2]
    text = f'{head},\n "codewords": [\n  {rows}\n ]\n}}\n'
    if output is None:
        print(text, end="")
        return 0
    with open_output(Path(output), force=force) as target:
        target.write(text.encode())
    render.say(f"{output}: {size} codewords of {block}, {made['digest']}", err=True)
    return 0

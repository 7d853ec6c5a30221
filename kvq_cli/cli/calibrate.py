"""calibrate: the command `kvq profile calibrate`."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from kvq_cli.cli import options, render


def calibrate(
    capture: Annotated[str, typer.Argument(help="Capture to measure.")],
    meta: options.Meta = None,
    layout: options.Layout = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Bounds to suggest a profile and bits for.")
    ] = None,
    queries: Annotated[
        str | None, typer.Option("--queries", help="Queries for the budget: a file, or self.")
    ] = None,
    sample: Annotated[
        str | None, typer.Option("--sample", help="Layers, and tokens, to try profiles on.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", help="Output file; - is standard output.")
    ] = None,
    force: options.Force = False,
    threads: options.Threads = 0,
) -> int:
    """Measure norms and outliers of a capture, for a profile to name in calibration_digest.

    \b
    Examples:
      kvq profile calibrate cache.safetensors -o calibration.json
      kvq profile calibrate cache.safetensors --budget bounds.json --sample 4x2048
    """
    from kvq_cli import advice
    from kvq_cli.errors import UsageError
    from kvq_cli.steps.output import open_output

    if budget is None and (queries or sample):
        raise UsageError("E101", "--queries and --sample are for --budget")
    found = advice.calibrate(
        capture,
        meta=options.key_values("--meta", meta),
        layout=layout,
        budget=budget,
        queries=queries,
        sample=sample,
        threads=threads,
    )
    text = jsonlib.dumps(found.to_json(), indent=2) + "\n"
    if output is None:
        print(text, end="")
    else:
        with open_output(Path(output), force=force, inputs=(Path(capture),)) as out:
            out.write(text.encode())
    render.say(f"{capture}: {found.digest()}", err=True)
    return 0

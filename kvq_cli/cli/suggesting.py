"""suggesting: what `stats --suggest` takes and prints: candidates, and the profile itself."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from kvq_cli.cli import measured, options, render
from kvq_cli.cli.loop import each_input
from kvq_cli.errors import UsageError

ABOUT = "With --suggest: try the built-in profiles, and print the one that keeps a budget smallest."

Suggest: TypeAlias = Annotated[
    bool, typer.Option("--suggest", help="Find the smallest built-in profile within --budget.")
]
Budget: TypeAlias = Annotated[
    str | None,
    typer.Option("--budget", help="For --suggest: bounds as JSON, or a profile that has them."),
]
Sample: TypeAlias = Annotated[
    str | None,
    typer.Option("--sample", help="Of a capture, so many layers, and tokens: 4, or 4x2048."),
]


def check_options(given: Mapping[str, object], *, csv: bool) -> None:
    """UsageError where an option would do nothing."""
    for name, value in {**given, "--csv": csv}.items():
        if value:
            raise UsageError("E101", f"{name} does not go with --suggest")


def suggestions(
    names: Sequence[str],
    budget: str | None,
    sample: str | None,
    terms: Mapping[str, Any],
    common: options.Common,
) -> int:
    """For each capture the candidates, and the first of them as a profile."""
    from kvq_cli import advice

    if budget is None:
        raise UsageError("E101", "--suggest needs --budget: a file of bounds, or a profile")

    def story(name: str) -> Any:
        return advice.suggest(
            name,
            budget,
            sample=sample,
            progress=render.progress(common, name),
            **terms,
        )

    def human(report: Mapping[str, Any]) -> None:
        _text(report, common)

    return each_input(names, story, common, human=human)


def _text(report: Mapping[str, Any], common: options.Common) -> None:
    """The table for people goes to standard error, the profile to standard output."""
    render.say(f"{report['path']}: bytes of pages, budget kept", err=True)
    if report["sample"]:
        render.say(f"sample: {measured.sample_line(report['sample'])}", err=True)
    rows = [
        [each["name"], each["bytes"], f"{each['ratio']:.3f}", each["raw_pages"]]
        for each in (report["candidates"] if common.verbose else report["candidates"][:5])
    ]
    render.table(common, ("profile", "bytes", "ratio", "raw pages"), rows, err=True)
    for note in report["notes"]:
        render.say(f"note: {note}", err=True)
    print(jsonlib.dumps(report["profile"], indent=2))

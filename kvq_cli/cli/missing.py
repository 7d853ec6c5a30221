"""missing: what a partial container lacks, for people: the first few things, and how many more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from kvq_cli.cli import render

NAMED: Final = 8


def say_lost(lost: Mapping[str, Any], *, err: bool = False) -> None:
    from kvq_cli.steps.lost import told

    lines = told(lost)
    for line in lines[:NAMED]:
        render.say(f"  lost         {line}", err=err)
    if lines[NAMED:]:
        render.say(f"  and {len(lines) - NAMED} more, which --json names", err=err)

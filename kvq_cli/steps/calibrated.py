"""calibrated: what a plan takes from a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Final

from kvq_cli.numerics.scratch import Tables
from kvq_cli.record import record
from kvq_cli.words import Role, TableSpec

Spans = tuple[tuple[int, int], ...]  # first layer, and how many


@record(eq=False)
class Calibrated:
    """Its digest; for the codec transform also its table, an encoder's matrices and the groups."""

    digest: str | None = None
    tables: Tables = field(default_factory=dict)
    groups: Mapping[Role, Spans] | None = None  # of layers that are transformed together
    table: TableSpec | None = None  # that a container holds, or refers to
    notes: tuple[str, ...] = ()
    own: bool = False  # made of the capture itself: nobody else has it


UNCALIBRATED: Final = Calibrated()

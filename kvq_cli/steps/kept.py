"""kept: whether a container keeps quality budgets: its own profile's, and a further one.

Spec: formats/report.md, section "verify".

Without the capture counts what the container says in its `qual` chunk; next to the capture,
what is measured now, in floats, as anybody else would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from kvq_cli.capture import Capture
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.reader import Reader
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.profile import SCHEMA, Budget, parse_profile
from kvq_cli.quality import compare
from kvq_cli.steps.comparison import Broken, Comparison
from kvq_cli.steps.drift import attention_rows
from kvq_cli.steps.opened import Container
from kvq_cli.steps.probe import SELF, probe_of, read_bits
from kvq_cli.steps.verdict import (
    METRIC,
    RELATIVE,
    Bounds,
    Found,
    Worst,
    broken_line,
    nearest,
    strictest,
)
from kvq_cli.steps.work import Progress, workers

UNKEPT: Final = "E806"
NO_QUERIES: Final = "attention was not measured again: its queries lie in a file, see --queries"
PIPE: Final = "nothing was measured again: a container from a pipe is read once"
PARTLY: Final = "no budget was looked at: a partial container lacks what it was measured over"
SEGMENT: Final = "attention was not measured again: it looks at what the segment continues, too"
OTHERS: Final = "attention was measured with other queries than at compression"


def held_to_budgets(
    reader: Reader,
    compared: Comparison,
    capture: Capture | None,
    further: Bounds,
    queries: str | Path | None,
    threads: int,
    progress: Progress,
) -> tuple[Found, list[Broken], list[str]]:
    """The worst of each bound, the bounds that are not kept, and what somebody should know."""
    if reader.manifest.partial is not None:
        return {}, [], [PARTLY] if recorded_bounds(reader.manifest) or further else []
    bounds = recorded_bounds(reader.manifest)
    told, worst = compared.told or ({}, {})
    notes: list[str] = []
    if told != bounds:
        return {}, [_broken("what was measured is not what the profile bounds")], notes
    if capture is not None and (bounds or further) and not reader.source.seekable:
        notes = [PIPE]
    elif capture is not None and not compared.broken and (bounds or further):
        container = Container(reader.source, reader.given)
        found, notes = _measured(container, capture, bounds | further, queries, threads, progress)
        worst = worst | found
    return worst, [*_unkept(worst, bounds), *_unmeasured(worst, further)], notes


def recorded_bounds(manifest: Manifest) -> Bounds:
    """The bounds of the profiles that a container records."""
    return strictest(_budget(each["profile"]) for each in manifest.profiles)


def _budget(profile: dict[str, Any]) -> Budget | None:
    if profile.get("schema") == SCHEMA:
        return parse_profile(profile).budget
    from kvq_cli.profile.compat import budget_of

    return budget_of(KvCompressionProfileV1.from_json(profile).quality_budget)


def _unmeasured(worst: Found, further: Bounds) -> Iterator[Broken]:
    for name, bound in further.items():
        if name not in worst:
            yield _broken(f"{name} {bound:.6g}: nothing was measured")
    yield from _unkept(worst, further)


def _unkept(worst: Found, bounds: Bounds) -> Iterator[Broken]:
    line = broken_line(worst, bounds)
    if line is not None:
        yield _broken(line)


def _broken(message: str) -> Broken:
    return {"error_id": UNKEPT, "message": message}


def _measured(
    container: Container,
    capture: Capture,
    bounds: Bounds,
    queries: str | Path | None,
    threads: int,
    progress: Progress,
) -> tuple[Found, list[str]]:
    """What the bounds bound, as far as it can be measured now."""
    found = _pages(container, capture) if RELATIVE in bounds else {}
    asked = {name: metric for name, metric in METRIC.items() if name in bounds}
    if not asked:
        return found, []
    manifest = container.manifest
    if manifest.continues is not None:
        return found, [SEGMENT]
    with ExitStack() as stack:
        wanted = queries or (SELF if manifest.probe == SELF else None)
        probe = stack.enter_context(probe_of(capture, wanted))
        if probe is None:
            return found, [NO_QUERIES]
        pool = stack.enter_context(workers(threads))
        for row in attention_rows(probe, container, pool, progress):
            if row["head"] is not None:
                told = {name: row[metric] for name, metric in asked.items()}
                found = nearest(found, _at(row["layer"], row["head"], told))
        same = probe.digest == manifest.queries_digest or manifest.probe == "none"
        return found, [] if same else [OTHERS]


def _pages(container: Container, capture: Capture) -> Found:
    """The largest relative MSE of a head of a page."""
    found: Found = {}
    scratch = Scratch()
    for (role, batch, layer), slab in sorted(capture.slabs.items()):
        for start, stop, heads in container.page_places(role, layer, batch):
            before = read_bits(capture.source, slab, start, stop)[list(heads)]
            rows = range(start, stop)
            after = container.rows(role, layer, batch=batch, heads=heads, tokens=rows, dtype=None)
            for head, each in zip(heads, compare(before, after, slab.dtype, scratch), strict=True):
                loss = each.to_json()["relative_mse"]
                found = nearest(found, _at(layer, head, {RELATIVE: loss}))
    return found


def _at(layer: int, head: int, told: dict[str, float | None]) -> Found:
    return {name: Worst(value, layer, head) for name, value in told.items() if value is not None}

"""advice: stories that write nothing: what a capture is like, and what would suit it.

plan_stats   what a cache would take that nobody has captured
calibrate    what a capture's rows are like, for profiles to be made by
suggest      which built-in profile makes it smallest and keeps a quality budget
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kvq_cli.profile import Budget, Calibration, Profile, load_budget
from kvq_cli.steps import reports
from kvq_cli.steps.books import read_codebooks
from kvq_cli.steps.calibrate import calibrated
from kvq_cli.steps.choose import choose_profiles, storage_of
from kvq_cli.steps.facts import shapes_of
from kvq_cli.steps.geometry import Geometry
from kvq_cli.steps.inputs import capture_input
from kvq_cli.steps.plan import make_plan
from kvq_cli.steps.planned import described, free_profile, plan_report
from kvq_cli.steps.sample import Sample, sampled
from kvq_cli.steps.suggest import suggested
from kvq_cli.steps.work import Progress, silent

__all__ = ["calibrate", "plan_stats", "suggest"]


def plan_stats(
    source: str | Path | Profile, geometry: Geometry, *, codebooks: Sequence[str | Path] = ()
) -> reports.PlanReport:
    """What a container of such a cache would take by a profile: computed, nothing is measured."""
    profile = free_profile(source)
    capture = described(geometry)
    choices = choose_profiles([profile], shapes_of(capture))
    plan = make_plan(capture, choices, storage_of(choices), read_codebooks(codebooks))
    name = profile.name if isinstance(source, Profile) else str(source)
    return plan_report(name, geometry, plan)


def calibrate(
    source: str | Path,
    *,
    meta: Mapping[str, str] | None = None,
    layout: str | None = None,
    budget: str | Path | Budget | None = None,
    queries: str | Path | None = None,
    sample: str | None = None,
    threads: int = 0,
    progress: Progress = silent,
) -> Calibration:
    """What a capture's rows are like and, under a budget, which built-in profile suits them."""
    with capture_input(Path(source), layout, meta) as capture:
        found = calibrated(capture, threads, progress)
    if budget is None:
        return found
    best = suggest(
        source,
        budget,
        meta=meta,
        layout=layout,
        queries=queries,
        sample=sample,
        threads=threads,
    )
    bits = best.bits_per_element
    return replace(found, profile=str(best.profile["name"]), bits_per_element=bits)


def suggest(
    source: str | Path,
    budget: str | Path | Budget,
    *,
    meta: Mapping[str, str] | None = None,
    layout: str | None = None,
    queries: str | Path | None = None,
    calibration: str | Path | None = None,
    sample: str | None = None,
    widen: bool = False,
    threads: int = 0,
    progress: Progress = silent,
) -> reports.SuggestReport:
    """The built-in profile that makes a capture smallest and keeps a budget; nothing is written.

    `sample` is how many layers, and tokens of each, are looked at: "4", "4x2048". Profiles that
    need a calibration are tried where there is one, "self" for one of the capture's own.
    """
    bounds = budget if isinstance(budget, Budget) else load_budget(budget)
    part = Sample.parse(sample) if sample is not None else None
    with (
        capture_input(Path(source), layout, meta, widen=widen) as whole,
        sampled(whole, part, queries) as (capture, asked, told),
    ):
        return suggested(str(source), capture, bounds, asked, calibration, told, threads, progress)

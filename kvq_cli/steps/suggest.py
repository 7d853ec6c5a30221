"""suggest: the built-in profile under which a capture is smallest and keeps a quality budget.

Spec: formats/report.md, section "stats --suggest".

Every lossy built-in profile is tried with the budget, once as it is, so that pages which break
the budget stay raw, and once with the codecs of `int8` as a ladder before that; transforms climb
by finer steps first, and are tried where there is a calibration. Pages are encoded, and counted
with all that frames them; nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kvq_cli.capture import Capture
from kvq_cli.codecs.transform import Transform
from kvq_cli.container import chunk
from kvq_cli.container.index import PAGE_ENTRY
from kvq_cli.container.preamble import padded
from kvq_cli.profile import Budget, Fallback, Profile, Rung, builtin_names, load_profile
from kvq_cli.record import record
from kvq_cli.steps.bound import calibrated, needs_transform
from kvq_cli.steps.budget import kept_to_budget
from kvq_cli.steps.choose import Choice, choose_profiles
from kvq_cli.steps.encode import Encoder, batches
from kvq_cli.steps.facts import check_rows, shapes_of
from kvq_cli.steps.fitted import on_target
from kvq_cli.steps.plan import PagePlan, Plan, make_plan
from kvq_cli.steps.probe import QuerySource
from kvq_cli.steps.reports import SuggestReport
from kvq_cli.steps.work import Progress, in_order, silent, workers
from kvq_cli.words import Reason, Role

RUNGS: Final = "int8"
OF_VALUES: Final = ("min_attention_cosine", "max_value_aggregation_mse", "max_relative_mse")
LOSSLESS: Final = ("raw", "lossless")
FINER: Final = (2048, 1448, 1024)  # steps of transforms, before the codecs of RUNGS


@record
class Candidate:
    """One profile, and what the sampled pages take under it."""

    profile: Profile
    nbytes: int
    raw: int  # pages that the budget keeps raw

    def to_json(self, source: int, elements: int) -> dict[str, Any]:
        return {
            "name": self.profile.name,
            "bytes": self.nbytes,
            "ratio": round(source / self.nbytes, 4),
            "bits_per_element": round(8 * self.nbytes / elements, 4),
            "raw_pages": self.raw,
        }


def suggested(
    path: str,
    capture: Capture,
    budget: Budget,
    queries: QuerySource,
    calibration: str | Path | None,
    sample: dict[str, int] | None,
    threads: int,
    progress: Progress,
) -> SuggestReport:
    """All candidates, the smallest first; `sample` is what the capture is of another.

    Those that need a calibration are among them where there is one.
    """
    check_rows(capture)
    budget = replace(budget, on_violation=Fallback.KEEP_RAW)
    profiles = [
        each for each in candidates(budget) if calibration is not None or not needs_transform(each)
    ]
    found: list[Candidate] = []
    for done, profile in enumerate(profiles):
        plan = _planned(capture, profile, calibration, queries, threads)
        plan = kept_to_budget(plan, queries, threads)
        found.append(_tried(plan, profile, threads))
        progress(done + 1, len(profiles))
    found.sort(key=lambda each: each.nbytes)
    slabs = capture.slabs.values()
    source = sum(slab.heads * slab.tokens * slab.row_size for slab in slabs)
    elements = sum(slab.heads * slab.tokens * slab.channels for slab in slabs)
    return SuggestReport(
        path=path,
        sample=sample,
        source_bytes=source,
        candidates=[each.to_json(source, elements) for each in found],
        bits_per_element=round(8 * found[0].nbytes / elements, 4),
        profile=found[0].profile.to_json(),
        digest=found[0].profile.digest(),
        notes=(*plan.notes, *_note(budget)),
    )


def _planned(
    capture: Capture,
    profile: Profile,
    calibration: str | Path | None,
    queries: QuerySource,
    threads: int,
) -> Plan:
    choices = choose_profiles([profile], shapes_of(capture))
    if not needs_transform(profile):
        return make_plan(capture, choices, profile.storage)
    choices, found = calibrated(capture, choices, calibration, threads, silent)

    def plan_of(chosen: Sequence[Choice]) -> Plan:
        return make_plan(capture, tuple(chosen), profile.storage, found.tables, found)

    return on_target(plan_of, choices, queries, threads, silent)


def _note(budget: Budget) -> Iterator[str]:
    if all(getattr(budget, name) is None for name in OF_VALUES):
        yield f"no bound looks at values, which may become anything: see {', '.join(OF_VALUES)}"


def candidates(budget: Budget) -> Iterator[Profile]:
    """The built-in profiles with the budget, then with a ladder; one that loses nothing besides."""
    rungs = load_profile(RUNGS)
    assert isinstance(rungs, Profile)
    ladder = tuple(
        Rung(next(rule.codec for rule in rungs.rules if rule.role in (None, role)), role)
        for role in Role
    )
    for name in builtin_names():
        profile = load_profile(name)
        if not isinstance(profile, Profile) or name in LOSSLESS:
            continue
        yield replace(profile, budget=replace(budget, ladder=()))
        if name != RUNGS:
            finer = tuple(Rung(Transform(step=step)) for step in FINER if needs_transform(profile))
            laddered = replace(budget, ladder=(*finer, *ladder))
            yield replace(profile, name=f"{name}-or-{RUNGS}", budget=laddered)
    lossless = load_profile(LOSSLESS[1])
    assert isinstance(lossless, Profile)
    yield lossless


def _tried(plan: Plan, profile: Profile, threads: int) -> Candidate:
    encoder, alignment = Encoder(plan), plan.manifest.alignment

    def counted(batch: list[PagePlan]) -> tuple[int, int]:
        pages = encoder.encode_batch(batch)
        sizes = (padded(chunk.SIZE + len(page.coded.payload), alignment) for page in pages)
        raw = sum(page.record.reason is Reason.BUDGET for page in pages)
        return sum(sizes) + PAGE_ENTRY.size * len(pages), raw

    total = raw = 0
    with workers(threads, encoder.room) as pool:
        for size, count in in_order(pool, counted, batches(plan.pages())):
            total, raw = total + size, raw + count
    return Candidate(profile, total, raw)

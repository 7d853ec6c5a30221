"""fitted: the step of the codec transform that meets a profile's target.

Spec: formats/profile.md, section "target".

    bits              what pages take, FRAME bytes each besides, in bits an element
    relative_mse      of what transform pages hold, the larger one of both roles
    max_attention_tv  of the query head that is worst off, as a budget measures it

Steps are 2**(k / 16) units: of `bits` the finest that is on target, of others the coarsest; the
search goes where that should be. Pages are looked
at before entropy coding, so that the step, and with it the content root, does not depend on
zstd. Of large captures some are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from kvq_cli.codecs import Codec
from kvq_cli.codecs.transform import STEP, Transform
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.planes import least_size
from kvq_cli.quality import Distortion, compare
from kvq_cli.record import record
from kvq_cli.steps.bound import with_codecs
from kvq_cli.steps.budget import worst_unraised
from kvq_cli.steps.choose import Choice
from kvq_cli.steps.encode import Encoder
from kvq_cli.steps.plan import PagePlan, Plan
from kvq_cli.steps.probe import QuerySource
from kvq_cli.steps.work import Progress, in_order, workers
from kvq_cli.words import Role

BITS: Final = "bits"
FRAME: Final = 320  # bytes that a page takes in a file besides its planes
SAMPLE: Final = 1 << 25  # bytes of pages that are tried
FINEST: Final = -160
COARSEST: Final = 32
USUAL: Final = -72  # about 0.044 units, eight times smaller than the source, to begin with
SLOPE: Final = 1 / 32  # bits an element, less for each number
RISE: Final = 8  # numbers that double a square error
NEAR: Final = 6
TRIES: Final = 6  # that a search takes, about
TINY: Final = 1e-12
# 2**(k / 16), k from 0 to 15, in parts of 65536.
ROOTS: Final = (
    65536, 68438, 71468, 74632, 77936, 81386, 84990, 88752,
    92682, 96785, 101070, 105545, 110218, 115098, 120194, 125515,
)  # fmt: skip


def step_of(k: int) -> int:
    """The step 2**(k / 16), in parts of 65536."""
    octave, root = divmod(k, 16)
    whole = ROOTS[root] * STEP * 2.0**octave / 65536
    return max(1, round(whole))


def on_target(
    plan_of: Callable[[Sequence[Choice]], Plan],
    choices: Sequence[Choice],
    queries: QuerySource,
    threads: int,
    progress: Progress,
) -> Plan:
    """The plan of profiles; where one has a target, with the step that meets it."""
    target = next((each.profile.target for each in choices if each.profile.target), None)
    if target is None:
        return plan_of(choices)
    ((name, limit),) = target.to_json().items()
    measure = MEASURES[name]

    def tried(step: int) -> Fit:
        value, plan = measure(plan_of(stepped(choices, step)), queries, threads)
        return Fit(plan, value, limit)

    found = fitted(tried, rising=name != BITS, progress=progress)
    if found.reached:
        return found.plan
    note = f"the target {name} {limit:g} is out of reach, {found.value:.4g} is nearest"
    return replace(found.plan, notes=(*found.plan.notes, note))


def stepped(choices: Sequence[Choice], step: int) -> list[Choice]:
    """With this step wherever a transform has none."""

    def of(codec: Codec) -> Codec:
        if isinstance(codec, Transform) and codec.step is None:
            return replace(codec, step=step)
        return codec

    return [replace(each, profile=with_codecs(each.profile, of)) for each in choices]


@record(eq=False)
class Fit:
    """A plan with some step, what is measured of it, and what that may be at most."""

    plan: Plan
    value: float
    limit: float

    @property
    def reached(self) -> bool:
        return self.value <= self.limit


def fitted(tried: Callable[[int], Fit], *, rising: bool, progress: Progress) -> Fit:
    """What is nearest below its limit; values are `rising` with the step, or they fall."""
    seen: dict[int, Fit] = {}

    def at(k: int) -> Fit:
        if k not in seen:
            seen[k] = tried(step_of(k))
            progress(len(seen), TRIES)
        return seen[k]

    # What misses the target lies on one side of what meets it, and this number between them.
    misses, meets = (COARSEST, FINEST) if rising else (FINEST, COARSEST)
    guess = USUAL
    while abs(meets - misses) > 1:
        found = at(guess)
        misses, meets = (misses, guess) if found.reached else (guess, meets)
        guess = _next(guess, found, *sorted((misses, meets)), rising=rising)
    return at(meets)


def _next(k: int, found: Fit, low: int, high: int, *, rising: bool) -> int:
    """Where the limit should be met, between two numbers."""
    if rising:
        octaves = math.frexp(found.limit / max(found.value, TINY))[1] - 0.5
        guess = k + round(octaves * RISE)
    else:
        guess = k + round((found.value - found.limit) / SLOPE)
    if low < guess < high:
        return guess
    # Two numbers that are far apart are halved, however near to one it should lie.
    if high - low > NEAR:
        return (low + high) // 2
    return low + 1 if guess <= low else high - 1


def _bits(plan: Plan, _: QuerySource, threads: int) -> tuple[float, Plan]:
    mine, others, elements = _pages(plan)
    encoder = Encoder(plan)
    chosen, share = _sampled(mine)
    with workers(threads) as pool:
        sizes = in_order(pool, lambda page: encoder.tried(page, decoded=False)[0], chosen)
        packed = sum(sizes)
    framed = FRAME * len(mine) + others
    return (8 * (framed + packed / share) / elements if elements else 0.0), plan


def _relative_mse(plan: Plan, _: QuerySource, threads: int) -> tuple[float, Plan]:
    encoder, chosen = Encoder(plan), _sampled(_pages(plan)[0])[0]
    errors = {role: Distortion() for role in Role}

    def measured(page: PagePlan) -> tuple[Role, list[Distortion]]:
        role, (_, pair) = page.record.key.role, encoder.tried(page, decoded=True)
        if pair is None:  # raw
            return role, []
        before, after = pair
        return role, compare(before.bits, after.bits, after.spec.dtype, Scratch())

    with workers(threads) as pool:
        for role, found in in_order(pool, measured, chosen):
            for each in found:
                errors[role].merge(each)
    return max(each.to_json()["relative_mse"] or 0.0 for each in errors.values()), plan


def _attention_tv(plan: Plan, queries: QuerySource, threads: int) -> tuple[float, Plan]:
    return worst_unraised(plan, "max_attention_tv", queries, threads)


MEASURES: Final = {
    BITS: _bits,
    "relative_mse": _relative_mse,
    "max_attention_tv": _attention_tv,
}


def _pages(plan: Plan) -> tuple[list[PagePlan], int, int]:
    """Those with a transform; bytes of all others, framed, and elements of all."""
    mine, others, elements = [], 0, 0
    for page in plan.pages():
        elements += page.nbytes // page.spec.dtype.size
        if isinstance(page.codec, Transform):
            mine.append(page)
        else:
            others += FRAME + least_size(page.codec.layout(page.spec))
    return mine, others, elements


def _sampled(pages: Sequence[PagePlan]) -> tuple[Sequence[PagePlan], float]:
    """Pages to try, and which share of the bytes of all they have."""
    whole = sum(page.nbytes for page in pages)
    chosen = pages[:: max(1, -(-whole // SAMPLE))]
    return chosen, sum(page.nbytes for page in chosen) / whole if whole else 1.0

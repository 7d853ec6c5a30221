"""fitted: the step of the codec transform that meets a profile's target.

Spec: formats/profile.md, section "target".

    bits           what pages take, FRAME bytes each besides, in bits an element, is at most so much
    relative_mse   of what transform pages hold, of either role, is at most so much

Steps are 2**(k / 16) units; the search goes where the target should be met. Pages are looked
at before entropy coding, so that the step, and with it the content root, does not depend on
zstd. Of large captures some are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from kvq_cli.codecs import Codec
from kvq_cli.codecs.transform import STEP, Transform
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.profile.model import Target
from kvq_cli.quality import Distortion, compare
from kvq_cli.record import record
from kvq_cli.steps.bound import with_codecs
from kvq_cli.steps.choose import Choice
from kvq_cli.steps.encode import Encoder
from kvq_cli.steps.plan import PagePlan, Plan
from kvq_cli.steps.work import Progress, in_order, workers
from kvq_cli.words import Role

FRAME: Final = 320  # bytes that a page takes in a file besides its planes
SAMPLE: Final = 1 << 25  # bytes of pages that are tried
FINEST: Final = -160
COARSEST: Final = 32
USUAL: Final = -72  # about 0.044 units, eight times smaller than the source, to begin with
SLOPE: Final = 1 / 32  # bits an element, less for each number
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
    threads: int,
    progress: Progress,
) -> Plan:
    """The plan of profiles; where one has a target, with the step that meets it."""
    target = next((each.profile.target for each in choices if each.profile.target), None)
    if target is None:
        return plan_of(choices)
    found = fitted(lambda step: plan_of(stepped(choices, step)), target, threads, progress)
    plan = plan_of(stepped(choices, found.step))
    if not found.reached:
        note = f"the target {_told(target)} is out of reach: {found.bits:.4g} bits an element"
        plan = replace(plan, notes=(*plan.notes, note))
    return plan


def stepped(choices: Sequence[Choice], step: int) -> list[Choice]:
    """With this step wherever a transform has none."""

    def of(codec: Codec) -> Codec:
        if isinstance(codec, Transform) and codec.step is None:
            return replace(codec, step=step)
        return codec

    return [replace(each, profile=with_codecs(each.profile, of)) for each in choices]


def _told(target: Target) -> str:
    return ", ".join(f"{name} {number:g}" for name, number in target.to_json().items())


@record(eq=False)
class Fit:
    """A step, and what it made of the pages that were tried."""

    step: int
    reached: bool
    bits: float
    relative_mse: float


_Found = tuple[Role, int, list[Distortion]]


def fitted(
    plan_with: Callable[[int], Plan], target: Target, threads: int, progress: Progress
) -> Fit:
    """The step for a target: of `bits` the finest that meets it, of errors the coarsest."""
    tried: dict[int, Fit] = {}

    def at(k: int) -> Fit:
        if k not in tried:
            tried[k] = _tried(plan_with(step_of(k)), step_of(k), target, threads)
            progress(len(tried), TRIES)
        return tried[k]

    # What does not meet it lies on one side of what does, with this number between them.
    fails, meets = (FINEST, COARSEST) if target.bits is not None else (COARSEST, FINEST)
    guess = USUAL
    while abs(meets - fails) > 1:
        found = at(guess)
        if found.reached:
            meets = guess
        else:
            fails = guess
        guess = _next(guess, found, target, *sorted((fails, meets)))
    return at(meets)


def _next(k: int, found: Fit, target: Target, low: int, high: int) -> int:
    """Where the target should be met, between two numbers; bits fall by SLOPE a number."""
    if target.bits is not None:
        guess = k + round((found.bits - target.bits) / SLOPE)
    else:
        assert target.relative_mse is not None
        ratio = target.relative_mse / max(found.relative_mse, TINY)
        guess = k + round(8 * (math.frexp(ratio)[1] - 0.5))
    if not low < guess < high:
        guess = low + 1 if guess <= low else high - 1
        # Two numbers that are far apart are halved, however near to one it should lie.
        if high - low > NEAR:
            guess = (low + high) // 2
    return guess


def _tried(plan: Plan, step: int, target: Target, threads: int) -> Fit:
    encoder = Encoder(plan)
    pages, fixed, elements, share = _sampled(plan)
    measure = partial(_measured, encoder, lossy=target.relative_mse is not None)
    size = 0
    errors = {role: Distortion() for role in Role}
    with workers(threads) as pool:
        for role, packed, found in in_order(pool, measure, pages):
            size += packed
            for each in found:
                errors[role].merge(each)
    bits = 8 * (fixed + size / share) / elements if elements else 0.0
    worst = max(each.to_json()["relative_mse"] or 0.0 for each in errors.values())
    if target.bits is not None:
        return Fit(step, bits <= target.bits, bits, worst)
    assert target.relative_mse is not None
    return Fit(step, worst <= target.relative_mse, bits, worst)


def _sampled(plan: Plan) -> tuple[list[PagePlan], int, int, float]:
    """Pages to try; what all others take, elements of all, and the share that is tried."""
    mine = [page for page in plan.pages() if isinstance(page.codec, Transform)]
    whole = sum(page.nbytes for page in mine)
    stride = max(1, -(-whole // SAMPLE))
    chosen = mine[::stride]
    fixed, elements = 0, 0
    for page in plan.pages():
        elements += page.nbytes // page.spec.dtype.size
        fixed += FRAME + (0 if isinstance(page.codec, Transform) else page.nbytes)
    share = sum(page.nbytes for page in chosen) / whole if whole else 1.0
    return chosen, fixed, elements, share


def _measured(encoder: Encoder, page: PagePlan, *, lossy: bool) -> _Found:
    """Packed bytes of a page and, if asked, what became of its elements."""
    packed, pair = encoder.tried(page, decoded=lossy)
    if pair is None:
        return page.record.key.role, packed, []
    before, after = pair
    return (
        page.record.key.role,
        packed,
        compare(before.bits, after.bits, after.spec.dtype, Scratch()),
    )

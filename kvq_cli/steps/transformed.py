"""transformed: the story of `kvq calibrate`: captures, weights, groups, one file.

Spec: formats/transform.md; formats/report.md, section "calibrate".
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final

import numpy as np

from kvq_cli.codecs.basis import Basis, Turn
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.given import Given
from kvq_cli.steps.grouping import AUTO, SIZES, Turns, share_kept, stretches
from kvq_cli.steps.learned import HeadWeights, Learned, Task, learned
from kvq_cli.steps.sensitivity import Look, Sensitivity, Turning, measured
from kvq_cli.steps.work import Progress, in_order, workers
from kvq_cli.words import Role

QUERIES: Final = "queries"
SELF: Final = "self"
VARIANCE: Final = "variance"
WEIGHTS: Final = (QUERIES, SELF, VARIANCE)
FEW: Final = 4  # tokens for each dimension: below, a transform learns the texts by heart


@record
class Setting:
    """What the user asks for."""

    weights: str | None = None  # None: queries where there are any
    layers: int = 1  # of a group, or AUTO
    skip: int = 4
    rank: float = 1.0  # share of the components


@record(eq=False)
class Made:
    """Everything that the file holds and the report tells."""

    groups: list[Learned]
    turns: tuple[Turn, ...]
    weights: str
    share: float
    notes: list[str]

    @property
    def basis(self) -> Basis:
        """What a decoder needs."""
        return Basis(self.turns, tuple(each.group for each in self.groups))


def make(captures: Sequence[Given], setting: Setting, threads: int, progress: Progress) -> Made:
    """The transforms of these captures."""
    weights = weights_for(captures, setting)
    told = Turns.of(captures[0], needed=weights != VARIANCE)
    _check_turns(captures, told, weights)
    longest = max(each.longest for each in captures)
    turns = tuple(each.turn(longest) for each in told.rotaries)
    found = stretches(captures, told)
    counter = _Counter(captures, progress, twice=weights != VARIANCE)
    heads: HeadWeights = {}
    if weights != VARIANCE:
        with workers(threads, _room(captures)) as pool:
            heads = head_weights(captures, told, turns, weights, setting.skip, pool, counter)
    sizes = SIZES if setting.layers == AUTO else (setting.layers,)
    shares = {size: min(setting.rank, share_kept(found, size)) for size in sizes}
    task = Task(captures, turns, heads, setting.skip, setting.layers, shares)
    jobs = [job for each in found for job in each.cut(setting.layers or each.tried)]
    groups = []
    with workers(threads, messages=False) as pool:
        done = in_order(pool, lambda job: learned(task, job), jobs)
        for job, each in zip(jobs, done, strict=True):
            groups += each
            counter.add(job.role, job.places)
    used = turns if told.done else ()
    return Made(groups, used, weights, min(shares.values()), _notes(groups, setting, weights))


def weights_for(captures: Sequence[Given], setting: Setting) -> str:
    """Which weights are measured: those asked for, or the best there are."""
    lacking = [each for each in captures if each.queries is None]
    both = all(layer.key and layer.value for layer in captures[0].capture.layers)
    if setting.weights == QUERIES and lacking:
        path = lacking[0].capture.source.path
        raise CaptureError("E208", f"{path} has no queries, nor a file of them beside it")
    if setting.weights in (QUERIES, SELF) and not both:
        raise UsageError("E101", f"--weights {setting.weights} needs keys and values of all layers")
    if setting.weights is not None:
        return setting.weights
    return QUERIES if both and not lacking else VARIANCE


def head_weights(
    captures: Sequence[Given],
    told: Turns,
    turns: Sequence[Turn],
    weights: str,
    skip: int,
    pool: Executor | None,
    counter: _Counter,
) -> dict[tuple[Role, int], Floats]:
    """Of each layer's kv heads, keys and values, means over the queries of all captures."""

    def look(place: int) -> Sensitivity:
        number, turning = told.numbers.get(place), None
        if number is not None:
            turning = Turning(turns[number], told.rotaries[number].factor, told.done)
        sums = [
            measured(Look(given, layer, batch, turning, skip), own=weights == SELF)
            for given in captures
            for layer in (given.capture.layers[place],)
            for batch in range(layer.batch)
        ]
        count = max(1, sum(each.queries for each in sums))
        keys, values = sum(each.keys for each in sums), sum(each.values for each in sums)
        return Sensitivity(np.asarray(keys) / count, np.asarray(values) / count, count)

    places = range(len(captures[0].capture.layers))
    found: dict[tuple[Role, int], Floats] = {}
    for place, each in zip(places, in_order(pool, look, places), strict=True):
        found[Role.KEY, place], found[Role.VALUE, place] = each.keys, each.values
        for role in Role:
            counter.add(role, range(place, place + 1))
    return found


def _notes(groups: Sequence[Learned], setting: Setting, weights: str) -> list[str]:
    notes = []
    few = [each for each in groups if each.tokens < FEW * each.group.dimensions]
    if few:
        worst = max(few, key=lambda each: each.group.dimensions)
        notes.append(
            f"{len(few)} of {len(groups)} groups have fewer than {FEW} tokens for each "
            f"dimension, such as {worst.tokens} for {worst.group.dimensions}: more texts, or "
            "fewer layers a group, will do better on texts that are not among them"
        )
    if weights == VARIANCE and setting.weights is None:
        notes.append("no queries: errors of a head count by its own size; see --queries")
    if weights != VARIANCE:
        silent = sum(each.group.layers * each.group.heads - each.weighed for each in groups)
        if silent:
            notes.append(f"{silent} heads that no query looks at count by their own size")
    cut = [each.group.layers for each in groups]
    if setting.layers > max(cut):
        notes.append(f"groups have at most {max(cut)} layers: more are not alike, or too large")
    return notes


def _check_turns(captures: Sequence[Given], told: Turns, weights: str) -> None:
    """CaptureError E202 unless all captures' keys are turned alike."""
    for each in captures[1:]:
        other = Turns.of(each, needed=weights != VARIANCE)
        if (other.rotaries, other.numbers, other.done) != (told.rotaries, told.numbers, told.done):
            one, another = captures[0].capture.source.path, each.capture.source.path
            raise CaptureError("E202", f"{another}: rotary positions are not those of {one}")


def _room(captures: Sequence[Given]) -> int:
    """Bytes of the largest result of a layer."""
    layers = captures[0].capture.layers
    sizes = (each.heads * (each.key[0] ** 2 + 1 if each.key else 1) for each in layers)
    return 16 * max(sizes) + (1 << 16)


class _Counter:
    """Bytes read of those that will be."""

    def __init__(self, captures: Sequence[Given], progress: Progress, *, twice: bool) -> None:
        self._sizes: dict[tuple[Role, int], int] = {}
        for given in captures:
            numbers = {layer.layer: at for at, layer in enumerate(given.capture.layers)}
            for (role, _, layer), slab in given.capture.slabs.items():
                size = slab.heads * slab.tokens * slab.row_size
                key = role, numbers[layer]
                self._sizes[key] = self._sizes.get(key, 0) + size
        self._progress, self._done = progress, 0
        self._total = sum(self._sizes.values()) * (1 + twice)

    def add(self, role: Role, places: range) -> None:
        self._done += sum(self._sizes.get((role, each), 0) for each in places)
        self._progress(self._done, self._total)

"""learned: the transforms of one stretch of layers, from its moments in all captures.

Spec: formats/transform.md, section "How one is made" (not normative: the file is).

The last eighth of each capture is kept from a trial transform, which shows what to expect of
other texts; the transform itself is of all tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np

from kvq_cli.codecs.basis import Group, Turn
from kvq_cli.errors import CaptureError
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.given import Given
from kvq_cli.steps.grouping import SIZES, Stretch
from kvq_cli.steps.moments import Moments
from kvq_cli.steps.probe import read_wide
from kvq_cli.steps.rounding import Forward, Place, forward_of, group_of
from kvq_cli.steps.transforms import Transform, Weights, held_bits, plain_bits, principal
from kvq_cli.steps.turning import Angles
from kvq_cli.words import Role

HELD: Final = 8  # one of so many tokens is held out
BLOCK: Final = 1 << 21  # elements at a time
SHARED: Final = 1 << 18  # tokens of caches that share one table, where its size is weighed
# A head's root mean square counts as so much where nobody knows what errors do: what it was, about,
# where somebody did.
USUAL: Final[Mapping[Role, float]] = {Role.KEY: 0.07, Role.VALUE: 0.09}

HeadWeights: TypeAlias = Mapping[tuple[Role, int], Floats]  # by place: (H, D, D) or (H,)


@record(eq=False)
class Task:
    """What is the same for all stretches."""

    captures: Sequence[Given]
    turns: Sequence[Turn]
    weights: HeadWeights
    skip: int
    layers: int  # of a group, or AUTO
    shares: Mapping[int, float]  # of components kept, by number of layers


@record(eq=False)
class Learned:
    """One group, and what it did on tokens that its trial had not seen."""

    group: Group
    forward: Forward
    tokens: int
    lost: float
    weighed: int  # heads whose errors were weighed by queries
    held: tuple[float, float] | None  # bits of a token: transformed, and plain


def learned(task: Task, stretch: Stretch) -> list[Learned]:
    """The groups of a stretch, which is one group unless their size is to be found."""
    kept, held = _gathered(task, stretch)
    whole = Moments.sum(kept, held)
    weights, weighed = _weights(task, stretch, whole)
    work = _Work(task, stretch, kept, held, weights)
    size = task.layers or work.best()
    found = []
    for group in stretch.cut(size):
        heads, part = work.parts(group)
        mean = whole.mean
        transform = principal(
            mean[part], whole.covariance(part=part), weights.part(heads), work.most(group, size)
        )
        place = Place(
            group.role, group.first, len(group.places), group.heads, group.channels, group.turn
        )
        found.append(
            Learned(
                group_of(transform, place),
                forward_of(transform),
                whole.count,
                transform.lost,
                int(weighed[heads].sum()),
                work.held_out(group, size),
            )
        )
    return found


@record(eq=False)
class _Work:
    """A stretch while it is worked on."""

    task: Task
    stretch: Stretch
    kept: Moments
    held: Moments
    weights: Weights

    def parts(self, group: Stretch) -> tuple[slice, slice]:
        """The heads of a group, and its dimensions, among those of the stretch."""
        first = (group.places.start - self.stretch.places.start) * group.heads
        heads = slice(first, first + len(group.places) * group.heads)
        return heads, slice(heads.start * group.channels, heads.stop * group.channels)

    def most(self, group: Stretch, size: int) -> int:
        return max(1, int(group.dimensions * self.task.shares[size]))

    def trial(self, group: Stretch, size: int) -> tuple[Transform, Floats]:
        """The transform of the tokens that are not held out, and the moment of those that are."""
        heads, part = self.parts(group)
        mean = self.kept.mean
        covariance = self.kept.covariance(part=part)
        weights = self.weights.part(heads)
        transform = principal(mean[part], covariance, weights, self.most(group, size))
        return transform, self.held.covariance(mean, part)

    def held_out(self, group: Stretch, size: int) -> tuple[float, float] | None:
        if not self.held.count or not self.kept.count:
            return None
        transform, held = self.trial(group, size)
        heads, _ = self.parts(group)
        return held_bits(transform, held), plain_bits(self.weights.part(heads), held)

    def best(self) -> int:
        """The number of layers whose gain is worth the size of its matrices."""
        found: list[tuple[float, int]] = []
        for size in SIZES:
            if size > min(self.stretch.tried, len(self.stretch.places)) and found:
                break
            groups = self.stretch.cut(size)
            bits = 0.0
            for group in groups if self.held.count and self.kept.count else ():
                transform, held = self.trial(group, size)
                matrix = 16 * len(transform.variances) * group.dimensions
                bits += held_bits(transform, held) + matrix / SHARED
            found.append((bits, size))
            if len(found) > 2 and min(found)[1] < found[-2][1]:
                break  # twice no better
        return min(found)[1]


def _gathered(task: Task, stretch: Stretch) -> tuple[Moments, Moments]:
    """Moments of the tokens that a trial sees, and of those that it does not."""
    kept: Moments | None = None
    held: Moments | None = None
    for rows, out in _blocks(task, stretch):
        if kept is None or held is None:
            shift = rows.mean(axis=0)
            kept, held = Moments(shift), Moments(shift)
        (held if out else kept).add(rows)
    if kept is None or held is None:
        raise CaptureError("E206", f"no tokens are left behind the first {task.skip}")
    return kept, held


def _blocks(task: Task, stretch: Stretch) -> Iterator[tuple[Floats, bool]]:
    """Rows (T, n) of all layers, and whether they are held out."""
    step = max(64, BLOCK // stretch.dimensions)
    for given in task.captures:
        layer = given.capture.layers[stretch.places.start]
        first, edge = given.start(layer, task.skip), layer.tokens - layer.tokens // HELD
        edges = sorted({*range(first, layer.tokens, step), max(first, edge), layer.tokens})
        for batch in range(layer.batch):
            for start, stop in pairwise(edges):
                yield _rows(task, stretch, given, batch, start, stop), start >= edge


def _rows(task: Task, stretch: Stretch, given: Given, batch: int, start: int, stop: int) -> Floats:
    """Rows of a token range, their rotary positions undone."""
    shape = (stop - start, len(stretch.places), stretch.heads, stretch.channels)
    found = np.empty(shape)
    layers = given.capture.layers
    back = None
    if stretch.turn is not None:
        position = given.first(layers[stretch.places.start])
        places = np.arange(position + start, position + stop)
        back = Angles.of(task.turns[stretch.turn], places).back()
    for at, place in enumerate(stretch.places):
        slab = given.capture.slabs[stretch.role, batch, layers[place].layer]
        rows = read_wide(given.capture.source, slab, start, stop)
        found[:, at] = (back.turned(rows) if back else rows).swapaxes(0, 1)
    return found.reshape(len(found), -1)


def _weights(task: Task, stretch: Stretch, moments: Moments) -> tuple[Weights, np.ndarray]:
    """Of each head, by queries where they say something, else by its own size."""
    heads, channels = stretch.heads, stretch.channels
    matrices = np.empty((len(stretch.places) * heads, channels, channels))
    one = np.eye(channels)
    weighed = np.zeros(len(matrices), bool)
    for head in range(len(matrices)):
        place, at = stretch.places[head // heads], head % heads
        told = task.weights.get((stretch.role, place))
        matrix = None if told is None else one * told[at] if told.ndim == 1 else told[at]
        weighed[head] = matrix is not None and np.trace(matrix) > 0
        if matrix is None or not weighed[head]:
            part = slice(head * channels, (head + 1) * channels)
            energy = np.trace(moments.covariance(part=part)) / channels
            matrix = one * (USUAL[stretch.role] ** 2 / energy if energy > 0 else 1.0)
        matrices[head] = matrix
    return Weights.of(matrices), weighed

"""lloyd: training of a codebook, and the report that its digest covers.

Spec: formats/fibquant-compat.md, section "Training".

    each restart     the first codebook, rotated but for restart 0
    each iteration   nearest codewords → means of their blocks → empty cells split off another
    kept             the first of least error, the untrained codebook included

Sums run over blocks in their order. np.add.at adds one after the other, so does `_total`.
"""

from __future__ import annotations

import math
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract import compact
from kvq_cli.contract.compat.rotation import rotation
from kvq_cli.contract.compat.search import nearest
from kvq_cli.contract.fields import U64
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import EmptyCellPolicy
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

SCHEMA: Final = "lloyd_report_v1"
RESTART_STEP: Final = 0x9E3779B9
SPLIT: Final = 1e-6  # how far the halves of a split cell are moved apart, each way

Array: TypeAlias = NDArray[np.float64]


@record(kw_only=True)
class LloydRepairEventV1:
    """An empty cell that was filled, in digest order."""

    restart: int
    iteration: int
    empty_cell: int
    donor_cell: int
    donor_count_before: int
    donor_distortion: float
    residual_norm: float
    split_epsilon: float = SPLIT

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)


@record(kw_only=True)
class LloydReportV1:
    """What training did, in digest order."""

    schema_version: str = SCHEMA
    restarts: int
    iterations: int
    training_samples: int
    init_mse: float
    best_mse: float
    best_restart: int
    empty_cells_repaired: int
    repair_events: tuple[LloydRepairEventV1, ...]
    seed: int

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)


def trained(
    profile: FibQuantProfileV1, first: Array, samples: Array
) -> tuple[Array, LloydReportV1]:
    """The codebook of least error on `samples`, and the report."""
    init_mse = best_mse = _mean_distance(samples, first)
    best, best_restart = first, 0
    events: list[LloydRepairEventV1] = []
    for restart in range(profile.lloyd_restarts):
        words = _start(profile, first, restart)
        for iteration in range(profile.lloyd_iterations):
            cells = Cells(words, samples)
            events += cells.repaired(profile.empty_cell_policy, restart, iteration)
            words = cells.centres
        error = _mean_distance(samples, words)
        if error < best_mse:
            best, best_mse, best_restart = words, error, restart
    return best, LloydReportV1(
        restarts=profile.lloyd_restarts,
        iterations=profile.lloyd_iterations,
        training_samples=len(samples),
        init_mse=init_mse,
        best_mse=best_mse,
        best_restart=best_restart,
        empty_cells_repaired=len(events),
        repair_events=tuple(events),
        seed=profile.codebook_seed,
    )


class Cells:
    """The blocks nearest to each codeword, and what the next codewords are."""

    def __init__(self, words: Array, samples: Array) -> None:
        self._samples = samples
        self._owners, self._distances = nearest(samples, words)
        self._counts = np.bincount(self._owners, minlength=len(words))
        self._distortions = np.zeros(len(words))
        np.add.at(self._distortions, self._owners, self._distances)
        sums = np.zeros(words.shape)
        for at in range(words.shape[1]):
            np.add.at(sums[:, at], self._owners, samples[:, at])
        filled = self._counts > 0
        self.centres = np.where(filled[:, None], sums, words)
        self.centres[filled] /= self._counts[filled, None]

    def repaired(
        self, policy: EmptyCellPolicy, restart: int, iteration: int
    ) -> list[LloydRepairEventV1]:
        """Fill empty cells in ascending order; ProfileError where the policy or a cell forbids."""
        empty = np.flatnonzero(self._counts == 0).tolist()
        if empty and policy is EmptyCellPolicy.FAIL_CLOSED:
            found = f"training left {len(empty)} cells empty, and the profile wants none repaired"
            raise ProfileError("E403", found, "/empty_cell_policy")
        return [self._fill(cell, restart, iteration) for cell in empty]

    def _fill(self, empty: int, restart: int, iteration: int) -> LloydRepairEventV1:
        donor = self._donor()
        centre = self.centres[donor].copy()
        residual = self._farthest(donor) - centre
        norm = _length(residual)
        if norm <= 2.0**-52:
            raise ProfileError("E403", "the cell to be split has no extent", "/training_samples")
        event = LloydRepairEventV1(
            restart=restart,
            iteration=iteration,
            empty_cell=empty,
            donor_cell=donor,
            donor_count_before=int(self._counts[donor]),
            donor_distortion=float(self._distortions[donor]),
            residual_norm=norm,
        )
        shift = SPLIT * (residual / norm)
        self.centres[donor] = centre - shift
        self.centres[empty] = centre + shift
        self._counts[donor] -= 1
        self._counts[empty] = 1
        self._distortions[[donor, empty]] = 0.0
        return event

    def _donor(self) -> int:
        """The cell of most distortion among those of two blocks or more; the last of equals."""
        possible = np.flatnonzero(self._counts > 1)
        if not len(possible):
            raise ProfileError(
                "E403", "no cell can be split to fill an empty one", "/training_samples"
            )
        backwards = possible[::-1]
        return int(backwards[self._distortions[backwards].argmax()])

    def _farthest(self, cell: int) -> Array:
        """The block farthest from its codeword; the first of equals."""
        members = np.flatnonzero(self._owners == cell)
        farthest: Array = self._samples[members[self._distances[members].argmax()]]
        return farthest


def _start(profile: FibQuantProfileV1, first: Array, restart: int) -> Array:
    if restart == 0:
        return first
    seed = (profile.codebook_seed + restart * RESTART_STEP) & U64
    return rotation(profile.block_dim, seed).apply(first)


def _mean_distance(samples: Array, words: Array) -> float:
    return _total(nearest(samples, words)[1]) / len(samples)


def _length(vector: Array) -> float:
    return math.sqrt(_total(vector * vector))


def _total(values: Array) -> float:
    """The sum from the first to the last; Python's own sum compensates from 3.12 on."""
    total = 0.0
    for value in values.tolist():
        total += value
    return total

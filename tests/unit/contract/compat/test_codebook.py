"""Training and codebooks: the sample's law, repairs, refusals, and what is digested."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from kvq_cli.contract.compat.codebook import FibCodebookV1, codebook
from kvq_cli.contract.compat.initial import initial_codewords
from kvq_cli.contract.compat.lloyd import SPLIT, Cells, trained
from kvq_cli.contract.compat.training import training_set
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import EmptyCellPolicy, LloydMode
from kvq_cli.errors import ProfileError

SPLITS = EmptyCellPolicy.SPLIT_HIGHEST_DISTORTION
PROFILE = dataclasses.replace(
    FibQuantProfileV1.paper_default(16, 4, 16, 5), lloyd_restarts=2, lloyd_iterations=3
)
BOOK = codebook(PROFILE)


def refused(call: Any, *args: Any) -> tuple[str, str]:
    with pytest.raises(ProfileError) as refusal:
        call(*args)
    return refusal.value.error_id, refusal.value.pointer


@pytest.mark.parametrize(("d", "k"), [(4, 2), (12, 3), (64, 4), (64, 16)])
def test_blocks_follow_the_law_of_rotated_vectors(d: int, k: int) -> None:
    """E r² is k / d and each coordinate has the variance 1 / d."""
    profile = dataclasses.replace(
        FibQuantProfileV1.paper_default(d, k, 8, 3), training_samples=4000
    )
    blocks = training_set(profile)
    squares = (blocks**2).sum(axis=1)
    assert squares.max() < 1.0
    assert squares.mean() == pytest.approx(k / d, rel=0.05)
    assert blocks.var(axis=0) == pytest.approx(np.full(k, 1 / d), rel=0.15)
    assert abs(blocks.mean(axis=0)).max() < 0.05


def test_centres_are_means() -> None:
    """A codeword moves to the mean of its blocks; one without blocks stays."""
    words = np.array([[0.0, 0.0], [10.0, 0.0], [99.0, 0.0]])
    cells = Cells(words, np.array([[1.0, 1.0], [9.0, 0.0], [2.0, 0.0], [0.0, 2.0]]))
    assert cells.centres.tolist() == [[1.0, 1.0], [9.0, 0.0], [99.0, 0.0]]


def test_an_empty_cell_splits_the_worst() -> None:
    """The donor is the cell of most distortion; both halves part towards its farthest block."""
    words = np.array([[0.0, 0.0], [10.0, 0.0], [20.0, 0.0]])
    cells = Cells(words, np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [10.0, 0.0], [10.1, 0.0]]))
    (event,) = cells.repaired(SPLITS, 1, 2)
    assert (event.restart, event.iteration) == (1, 2)
    assert (event.empty_cell, event.donor_cell, event.donor_count_before) == (2, 0, 3)
    assert (event.donor_distortion, event.residual_norm) == (5.0, 1.0)
    assert cells.centres[[0, 2], 0].tolist() == [1.0 - SPLIT, 1.0 + SPLIT]


def test_empty_cells_are_filled_in_order() -> None:
    """A donor gives once while another has distortion left; of equals the last gives first."""
    words = np.array([[0.0, 0.0], [10.0, 0.0], [50.0, 0.0], [60.0, 0.0], [70.0, 0.0]])
    blocks = np.array([[x + y, 0.0] for x in (0.0, 10.0) for y in (-1.0, -1.0, 1.0, 2.0)])
    events = Cells(words, blocks).repaired(SPLITS, 0, 0)
    assert [event.empty_cell for event in events] == [2, 3, 4]
    assert [event.donor_cell for event in events] == [1, 0, 1]
    assert [event.donor_distortion for event in events] == [7.0, 7.0, 0.0]
    assert [event.donor_count_before for event in events] == [4, 4, 3]


def test_without_a_donor_training_fails() -> None:
    """Where every cell has one block at most, none can be split."""
    cells = Cells(np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([[1.0, 0.0]]))
    assert refused(cells.repaired, SPLITS, 0, 0) == ("E403", "/training_samples")


def test_a_cell_without_extent_is_not_split() -> None:
    """Equal blocks have no direction to part in."""
    cells = Cells(np.array([[0.0, 0.0], [9.0, 0.0]]), np.array([[1.0, 0.0], [1.0, 0.0]]))
    assert refused(cells.repaired, SPLITS, 0, 0) == ("E403", "/training_samples")


def test_a_profile_may_forbid_repairs() -> None:
    """fail_closed refuses what would be repaired, and nothing else."""
    profile = dataclasses.replace(
        FibQuantProfileV1.paper_default(8, 2, 8, 11),
        training_samples=64,
        lloyd_restarts=1,
        lloyd_iterations=1,
    )
    assert codebook(profile).report.empty_cells_repaired == 1
    strict = dataclasses.replace(profile, empty_cell_policy=EmptyCellPolicy.FAIL_CLOSED)
    assert refused(codebook, strict) == ("E403", "/empty_cell_policy")
    full = Cells(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]]))
    assert full.repaired(EmptyCellPolicy.FAIL_CLOSED, 0, 0) == []


def test_training_is_never_worse_than_none() -> None:
    """The error is at most that of the first codebook, which is kept where nothing is better."""
    assert BOOK.training_mse < BOOK.init_mse
    first = initial_codewords(PROFILE)
    words, report = trained(PROFILE, first, first)
    assert (report.init_mse, report.best_mse, report.best_restart) == (0.0, 0.0, 0)
    assert words is first


def test_codewords_lie_in_the_ball() -> None:
    """No codeword is longer than a block can be, and none is written to."""
    assert BOOK.codewords.dtype == np.float32
    assert (BOOK.codewords.astype(float) ** 2).sum(axis=1).max() <= 1.0
    with pytest.raises(ValueError, match="read-only"):
        BOOK.codewords[0, 0] = 0.0


def test_the_digest_is_of_all_that_names_a_codebook() -> None:
    """Profile, rotation, codewords and report are digested; training twice gives the same."""
    words = BOOK.codewords.copy()
    words[-1, -1] = np.nextafter(words[-1, -1], np.float32(2))
    others = [
        dataclasses.replace(BOOK, codewords=words),
        dataclasses.replace(BOOK, rotation_digest="blake3:" + 64 * "0"),
        dataclasses.replace(BOOK, report=dataclasses.replace(BOOK.report, best_restart=9)),
        dataclasses.replace(BOOK, profile=dataclasses.replace(PROFILE, codebook_version="x")),
    ]
    assert len({BOOK.digest(), *(other.digest() for other in others)}) == 5
    again: FibCodebookV1 = codebook(PROFILE, BOOK.rotation_digest)
    assert again.digest() == BOOK.digest()


def test_untrained_codebooks_are_refused() -> None:
    """lloyd_mode skip is a valid word whose result nobody has shown."""
    skip = FibQuantProfileV1.paper_default(8, 2, 8, 1, LloydMode.SKIP)
    assert refused(codebook, skip) == ("E403", "/lloyd_mode")

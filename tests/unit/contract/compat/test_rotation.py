"""Rotations: orthogonal, and sums in the order of one vector by itself."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.contract.compat.draws import Draws
from kvq_cli.contract.compat.rotation import StoredRotation, rotation
from kvq_cli.errors import ProfileError


def scalar_product(row: list[float], vector: list[float]) -> float:
    total = 0.0
    for left, right in zip(row, vector, strict=True):
        total += left * right
    return total


@pytest.mark.parametrize("dim", [1, 2, 7, 8, 9, 16, 40])
def test_rotations_are_orthogonal(dim: int) -> None:
    """Q times its transpose is the identity but for rounding."""
    matrix = rotation(dim, 6).matrix
    assert np.abs(matrix @ matrix.T - np.eye(dim)).max() < 1e-14


def test_vectors_are_rotated_as_one_by_one() -> None:
    """Each coordinate is one sum from first to last, however many vectors there are."""
    turn = rotation(9, 1)
    draws = Draws(7)
    vectors = np.array([[draws.normal() for _ in range(9)] for _ in range(300)])
    for found, matrix in (
        (turn.apply(vectors), turn.matrix),
        (turn.apply_inverse(vectors), turn.matrix.T),
    ):
        expected = [[scalar_product(row, v) for row in matrix.tolist()] for v in vectors.tolist()]
        assert found.tolist() == expected


def test_the_inverse_undoes_it() -> None:
    """Qᵀ Q x is x but for rounding; no vectors are no vectors."""
    turn = rotation(24, 3)
    vectors = np.linspace(-1.0, 1.0, 48).reshape(2, 24)
    assert np.allclose(turn.apply_inverse(turn.apply(vectors)), vectors, atol=1e-14)
    assert turn.apply(vectors[:0]).shape == (0, 24)


def test_the_digest_is_of_all_that_names_a_rotation() -> None:
    """Seed, dimension and every value of the matrix are digested."""
    turn = rotation(4, 1)
    other = turn.matrix.copy()
    other[3, 3] = np.nextafter(other[3, 3], 2.0)
    digests = {
        turn.digest(),
        rotation(4, 2).digest(),
        rotation(5, 1).digest(),
        StoredRotation(4, 2, turn.matrix).digest(),
        StoredRotation(4, 1, other).digest(),
    }
    assert len(digests) == 5
    assert rotation(4, 1).digest() == turn.digest()


def test_rotations_are_not_written_to() -> None:
    """The matrix is read-only."""
    with pytest.raises(ValueError, match="read-only"):
        rotation(2, 1).matrix[0, 0] = 0.0


@pytest.mark.parametrize("dim", [0, 4097])
def test_dimensions_have_limits(dim: int) -> None:
    """What no profile may ask for is refused before anything is computed."""
    with pytest.raises(ProfileError) as refusal:
        rotation(dim, 1)
    assert (refusal.value.error_id, refusal.value.pointer) == ("E404", "/ambient_dim")

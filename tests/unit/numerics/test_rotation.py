"""rotation: exact, orthogonal, and the same however it is computed."""

from __future__ import annotations

import numpy as np
import pytest

from kvq_cli.numerics.paley import hadamard, least_order, odd_order
from kvq_cli.numerics.rotation import LARGEST, Haar, Hadamard, rotation, squares
from kvq_cli.numerics.scratch import Scratch

ORDERS = [order for order in range(8, LARGEST + 1, 8) if odd_order(order)]
MISSING = [184, 232, 344, 376, 472, 520, 536, 584]


def integers(shape, most, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(-most, most + 1, shape).astype(np.float32)


def test_orders():
    """There is a matrix for every multiple of 8 up to 640, but for eight of them."""
    assert [order for order in range(8, LARGEST + 1, 8) if order not in ORDERS] == MISSING
    assert [least_order(channels) for channels in (1, 8, 9, 64, 80, 183, 640)] == [
        8, 8, 16, 64, 80, 192, 640,
    ]  # fmt: skip
    sides = {64: 1, 80: 20, 96: 12, 104: 104, 112: 28, 120: 60, 192: 12, 320: 20, 576: 36}
    assert {order: odd_order(order) for order in sides} == sides


@pytest.mark.parametrize("order", ORDERS)
def test_rows_of_a_hadamard_matrix_are_orthogonal(order):
    """Entries are 1 and -1; H times its transpose is N times one."""
    matrix = hadamard(order).astype(np.int64)
    assert set(np.unique(matrix)) <= {-1, 1}
    assert np.array_equal(matrix @ matrix.T, order * np.eye(order, dtype=np.int64))


def whole(kind, order, seed=0):
    """The matrix of a rotation, by turning unit vectors."""
    turned = rotation(kind, order, seed).turn(np.eye(order, dtype=np.float32), Scratch())
    return turned.T.astype(np.float64)


@pytest.mark.parametrize("order", [8, 64, 80, 96, 112, 104, 128, 256, 512, 576, 640])
def test_hadamard_is_its_definition(order):
    """H(N) · diag(s), whatever small matrices it is made of; back is its transpose."""
    matrix = whole("hadamard", order, seed=3)
    signs = matrix[0] * hadamard(order)[0]
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.sum()) < 6 * np.sqrt(order)
    assert np.array_equal(matrix, hadamard(order) * signs)
    rows = integers((3, order), 1 << 14)
    turning = Hadamard(order, 3)
    assert np.array_equal(turning.turn(rows, Scratch()), rows.astype(np.float64) @ matrix.T)
    assert np.array_equal(turning.back(rows, Scratch()), rows.astype(np.float64) @ matrix)


@pytest.mark.parametrize("order", [8, 40, 64, 128, 256])
def test_haar_is_orthogonal(order):
    """To 2**-20, after its entries were rounded to 2**-24; no two seeds have one matrix."""
    matrix = whole("haar", order) / 2**24
    assert np.abs(matrix @ matrix.T - np.eye(order)).max() < 2.0**-20
    assert np.abs(matrix - whole("haar", order, seed=1) / 2**24).max() > 0.1
    rows = integers((5, order), 1 << 15)
    turning = Haar(order, 0)
    back = turning.back(rows, Scratch())
    assert np.array_equal(back, (rows.astype(np.float64) @ np.rint(matrix * 2**24)).astype("f4"))


def test_haar_entries_are_those_of_a_random_rotation():
    """Coordinates have the variance and the kurtosis of coordinates of a random unit vector."""
    entries = whole("haar", 128).ravel() / 2**24 * np.sqrt(128)
    assert abs((entries**2).mean() - 1) < 1e-5
    assert abs((entries**4).mean() - 3 * 128 / 130) < 0.1


@pytest.mark.parametrize("kind", ["hadamard", "haar"])
@pytest.mark.parametrize("order", [64, 80, 128, 512, 640])
def test_the_largest_rows_are_exact(kind, order):
    """Rows as large as digits allow, of one sign and of the matrix's own: no sum is rounded."""
    turning = rotation(kind, order, 0)
    most = 1 << turning.digits
    matrix = np.rint(whole(kind, order)).astype(np.int64)
    rows = np.stack([np.full(order, most), np.where(matrix[1] < 0, -most, most)])
    exact = rows.astype(object) @ matrix.T.astype(object)
    assert np.array_equal(turning.turn(rows.astype(np.float32), Scratch()), exact.astype(float))


def test_few_rows_turn_like_many():
    """A row is turned alike alone and among others."""
    rows = integers((700, 96), 1 << 15)
    for kind in ("hadamard", "haar"):
        turning = rotation(kind, 96, 5)
        together = turning.turn(rows, Scratch()).copy()
        for at in (0, 1, 350, 699):
            alone = np.ascontiguousarray(rows[at : at + 1])
            assert np.array_equal(turning.turn(alone, Scratch())[0], together[at])


def test_squares_are_exact():
    """Sums of squares of the largest rows."""
    rows = np.full((2, LARGEST), 1 << 15, np.float32)
    rows[1] = integers(LARGEST, 1 << 15)
    exact = (rows.astype(object) ** 2).sum(axis=1)
    assert list(squares(rows, Scratch())) == [float(each) for each in exact]

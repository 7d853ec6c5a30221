"""quality: distortion against float64 NumPy, merged over pages."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvq_cli.numerics.scratch import Scratch
from kvq_cli.quality import Distortion, compare
from kvq_cli.words import DType
from support.captures import kv_bits

F32 = DType.F32


def bits(values):
    return np.ascontiguousarray(values, "<f4").view("<u4")


def one(before, after):
    """The distortion of one head."""
    (found,) = compare(bits([before]), bits([after]), F32, Scratch())
    return found.to_json()


def test_by_hand():
    """Two rows, of which one is off by 3 and 4."""
    found = one([[3, 4], [0, 5]], [[0, 0], [0, 5]])
    assert found["relative_mse"] == 0.5
    assert found["mse"] == 6.25
    assert found["mae"] == 1.75
    assert found["max_error"] == 4
    assert found["cosine"] == 0.5
    assert found["snr_db"] == pytest.approx(10 * math.log10(2), rel=1e-5)
    assert (found["elements"], found["non_finite"]) == (4, 0)


def test_zero_rows():
    """A row that is zero in both has cosine 1, in one of them 0; no energy has no ratio."""
    assert one([[0, 0]], [[0, 0]])["cosine"] == 1
    found = one([[0, 0]], [[1, 0]])
    assert (found["cosine"], found["relative_mse"], found["snr_db"]) == (0, None, None)
    assert one([[0, 0]], [[0, 0]])["relative_mse"] == 0


def test_nothing_measured():
    """Sums over no elements are figures too."""
    found = Distortion().to_json()
    assert found["relative_mse"] == 0
    assert found["snr_db"] is None


@pytest.mark.parametrize("word", [0x7FC00000, 0x7F800000, 0xFF800000, 0x7F800001])
def test_non_finite_elements_are_left_out(word):
    """They are counted, change no figure, and warn nobody."""
    before, after = bits([[[1, 2, 3]]]), bits([[[1, 2, 5]]])
    before[0, 0, 1] = after[0, 0, 1] = word
    (found,) = compare(before, after, F32, Scratch())
    assert (found.elements, found.non_finite) == (2, 1)
    assert found.squared_error == 4
    assert found.squared_original == 10


def test_the_largest_numbers():
    """Squares of the largest float32 do not overflow."""
    most = np.finfo(np.float32).max
    found = one([[most, -most]], [[-most, most]])
    assert found["relative_mse"] == 4
    assert found["cosine"] == pytest.approx(-1)


@pytest.mark.parametrize("dtype", DType)
def test_pages_add_up(dtype):
    """Merging the distortions of pages gives that of the whole, head by head."""
    before, after = kv_bits((3, 40, 16), dtype, 1), kv_bits((3, 40, 16), dtype, 2)
    whole = compare(before, after, dtype, Scratch())
    for head in range(3):
        merged = Distortion()
        for start, stop in ((0, 7), (7, 32), (32, 40)):
            part = before[:, start:stop].copy(), after[:, start:stop].copy()
            merged.merge(compare(*part, dtype, Scratch())[head])
        assert (merged.elements, merged.rows) == (whole[head].elements, whole[head].rows)
        for metric, number in whole[head].to_json().items():
            assert merged.to_json()[metric] == pytest.approx(number, rel=1e-6)


def test_the_input_is_not_written_to():
    """compare reads its pages and leaves them, NaN included."""
    before, after = kv_bits((2, 5, 8)), kv_bits((2, 5, 8), seed=1)
    before[0, 0, 0] = 0x7E00
    copies = before.copy(), after.copy()
    compare(before, after, DType.F16, Scratch())
    np.testing.assert_array_equal(before, copies[0])
    np.testing.assert_array_equal(after, copies[1])

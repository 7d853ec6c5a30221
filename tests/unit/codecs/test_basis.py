"""Basis tables: their bytes, and what is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kvq_cli.codecs.basis import UNIT, Basis, Group, Turn
from kvq_cli.errors import CodecError
from kvq_cli.words import Role


def angles(positions: range, pairs: int) -> np.ndarray:
    found = np.array([[t / 100 ** (i / pairs) for i in range(pairs)] for t in positions])
    return np.rint(np.stack([np.cos(found), np.sin(found)], axis=-1) / UNIT).astype(np.int32)


def basis() -> Basis:
    """Two groups of three layers, keys with a turn."""
    random = np.random.default_rng(0)
    turn = Turn(False, angles(range(8), 2), angles(range(0, 40, 8), 2))
    groups = []
    for role, first, layers, turned in (
        (Role.KEY, 0, 2, 0),
        (Role.KEY, 2, 1, None),
        (Role.VALUE, 0, 1, None),
    ):
        size = layers * 2 * 4
        restore = random.integers(-(2**15), 2**15, (3, size)).astype(np.int16)
        means = random.standard_normal(size).astype(np.float32)
        exponents = random.integers(-60, 61, size).astype(np.int16)
        groups.append(Group(role, first, layers, 2, 4, turned, means, exponents, restore))
    return Basis((turn,), tuple(groups))


def test_bytes_are_read_back() -> None:
    data = basis().to_bytes()
    assert Basis.from_bytes(data).to_bytes() == data


def test_groups_are_found_by_their_layers() -> None:
    found = basis()
    assert found.number(Role.KEY, 2, 1) == 1
    assert found.number(Role.KEY, 2, 2) is None
    assert found.number(Role.VALUE, 0, 1) == 2


def test_positions_follow_the_addition_theorem() -> None:
    (turn,) = basis().turns
    cosines, sines = turn.angles(5, 30)
    for at in range(30):
        for pair in range(2):
            angle = (5 + at) / 100 ** (pair / 2)
            assert cosines[at, pair] == pytest.approx(math.cos(angle), abs=1e-6)
            assert sines[at, pair] == pytest.approx(math.sin(angle), abs=1e-6)
    assert turn.positions == 40


@pytest.mark.parametrize("at", [0, 8, 12, 16, 20, 31])
def test_another_head_is_refused(at: int) -> None:
    """Each field of the head, and the reserved bytes."""
    data = bytearray(basis().to_bytes())
    data[at] ^= 0x80
    with pytest.raises(CodecError, match="basis table"):
        Basis.from_bytes(bytes(data))


def test_every_cut_and_anything_behind_is_refused() -> None:
    data = basis().to_bytes()
    for end in range(len(data)):
        with pytest.raises(CodecError, match="basis table"):
            Basis.from_bytes(data[:end])
    with pytest.raises(CodecError, match="behind"):
        Basis.from_bytes(data + b"\0")


def changed(number: int, value: int) -> bytes:
    """With another number in the header of the first group."""
    data = bytearray(basis().to_bytes())
    at = 32 + 32 + 8 * 2 * (8 + 5) + 4 * number
    data[at : at + 4] = value.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("number", "value"),
    [(0, 2), (0, 1), (1, 1), (2, 0), (3, 2**31), (4, 0), (5, 17), (6, 1), (7, 1)],
    ids=["role", "order", "overlap", "layers", "heads", "channels", "rank", "turn", "zero"],
)
def test_a_group_outside_the_spec_is_refused(number: int, value: int) -> None:
    with pytest.raises(CodecError, match="basis table"):
        Basis.from_bytes(changed(number, value))


@pytest.mark.parametrize("exponent", [61, -61, -32768])
def test_exponents_have_limits(exponent: int) -> None:
    found = basis()
    found.groups[0].exponents[3] = exponent
    with pytest.raises(CodecError, match="exponent"):
        Basis.from_bytes(found.to_bytes())


@pytest.mark.parametrize("mean", [np.nan, np.inf])
def test_means_are_finite(mean: float) -> None:
    found = basis()
    found.groups[0].means[3] = mean
    with pytest.raises(CodecError, match="mean"):
        Basis.from_bytes(found.to_bytes())

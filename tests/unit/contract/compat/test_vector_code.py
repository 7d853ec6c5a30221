"""Vector codes: many vectors as one, norms at their limits, and damaged codes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from kvq_cli.contract.compat.coding import Refusal
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.vector_code import REASONS, Quantizer
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import NormFormat
from kvq_cli.errors import CodecError, ProfileError

PROFILE = dataclasses.replace(
    FibQuantProfileV1.paper_default(12, 3, 12, 9), lloyd_restarts=1, lloyd_iterations=2
)
QUANTIZER = Quantizer.build(PROFILE)
RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(40, 12)).astype(np.float32) * RNG.choice([1e-5, 1.0, 1e4], (40, 1))
VECTORS = VECTORS.astype(np.float32)
CODE = QUANTIZER.code(VECTORS[0])


def axis(length: float) -> np.ndarray:
    """A vector of one coordinate: its norm is exact."""
    return np.array([0.0] * 11 + [length], np.float32)


def by_hand(vector: list[float]) -> tuple[float, list[int]]:
    """The norm and indices, one number after the other."""
    square = 0.0
    for value in vector:
        square += value * value
    norm = math.sqrt(square)
    turned = []
    for row in QUANTIZER.rotation.matrix.tolist():
        total = 0.0
        for left, right in zip(row, vector, strict=True):
            total += left * (right / norm)
        turned.append(total)
    indices = []
    for start in range(0, 12, 3):
        distances = []
        for word in QUANTIZER.codebook.codewords.tolist():
            total = 0.0
            for left, right in zip(turned[start : start + 3], word, strict=True):
                total += (left - right) * (left - right)
            distances.append(total)
        indices.append(distances.index(min(distances)))
    return norm, indices


def refused(error_id: str, call: Any, *args: Any) -> str:
    with pytest.raises(CodecError) as refusal:
        call(*args)
    assert refusal.value.error_id == error_id
    return str(refusal.value)


def test_vectors_are_coded_as_one_by_one() -> None:
    """Norms and indices are those of the sums written out."""
    codes = QUANTIZER.encode(VECTORS)
    expected = [by_hand(vector) for vector in VECTORS.tolist()]
    assert codes.indices.tolist() == [indices for _, indices in expected]
    halves = [np.float16(np.float32(norm)) for norm, _ in expected]
    assert codes.norms.view(np.float16).tolist() == halves
    assert not codes.refusals.any()


def test_vectors_come_back_near() -> None:
    """A decoded vector points where the vector does, and many decode as each alone."""
    codes = QUANTIZER.encode(VECTORS)
    decoded = QUANTIZER.decode(codes.norms, codes.indices)
    assert decoded.dtype == np.float32
    lengths = np.linalg.norm(decoded, axis=1) * np.linalg.norm(VECTORS, axis=1)
    assert ((decoded * VECTORS).sum(axis=1) / lengths).min() > 0.6
    for vector, code in zip(decoded, QUANTIZER.artifacts(codes), strict=True):
        assert np.array_equal(QUANTIZER.restore(code), vector)


def test_no_vectors_have_no_codes() -> None:
    """An empty batch is one."""
    codes = QUANTIZER.encode(VECTORS[:0])
    assert codes.indices.shape == (0, 4)
    assert QUANTIZER.decode(codes.norms, codes.indices).shape == (0, 12)
    assert QUANTIZER.artifacts(codes) == []


@pytest.mark.parametrize(
    ("vector", "refusal"),
    [
        (axis(0.0), Refusal.ZERO_NORM),
        (axis(-0.0), Refusal.ZERO_NORM),
        (axis(math.nan), Refusal.NON_FINITE),
        (axis(-math.inf), Refusal.NON_FINITE),
        (axis(65520.0), Refusal.NORM_RANGE),
        (axis(3.4e38), Refusal.NORM_RANGE),
        (np.full(12, 3.4e38, np.float32), Refusal.NORM_RANGE),
        (axis(2.0**-25), Refusal.NORM_RANGE),
        (axis(1e-45), Refusal.NORM_RANGE),
    ],
    ids=str,
)
def test_vectors_without_a_code(vector: np.ndarray, refusal: Refusal) -> None:
    """What has no finite positive half as its norm has no code, and spoils no other vector."""
    batch = np.stack([VECTORS[0], vector, VECTORS[1]])
    codes = QUANTIZER.encode(batch)
    assert codes.refusals.tolist() == [0, refusal, 0]
    assert codes.norms[1] == 0
    assert not codes.indices[1].any()
    alone = QUANTIZER.encode(VECTORS[:2])
    assert codes.indices[[0, 2]].tolist() == alone.indices.tolist()
    assert refused("E501", QUANTIZER.code, vector) == REASONS[refusal]


@pytest.mark.parametrize(
    ("length", "half"),
    [
        (65504.0, 65504.0),
        (65519.996, 65504.0),
        (1.0, 1.0),
        (2.0**-24, 2.0**-24),
        (np.nextafter(np.float32(2.0**-25), np.float32(1)), 2.0**-24),
        (1.0 + 2.0**-11, 1.0),
        (1.0 + 3 * 2.0**-11, 1.0 + 2.0**-9),
    ],
)
def test_norms_at_their_limits(length: float, half: float) -> None:
    """A norm is rounded to the nearest half, ties to even, and is kept if that is positive."""
    assert QUANTIZER.encode(axis(length)[None]).norms.view(np.float16).tolist() == [half]


def test_vectors_have_the_channels_of_the_profile() -> None:
    """Vectors of another length are refused."""
    refused("E501", QUANTIZER.encode, VECTORS[:, :11])


@pytest.mark.parametrize("norm", [0x0000, 0x8000, 0xBC00, 0x7C00, 0xFC00, 0x7E00])
def test_damaged_norms(norm: int) -> None:
    """Zero, negative and non-finite norms are refused."""
    damaged = dataclasses.replace(CODE, norm_payload=norm.to_bytes(2, "little"))
    refused("E502", QUANTIZER.restore, damaged)


@pytest.mark.parametrize("size", [0, 1, 3])
def test_norms_have_two_bytes(size: int) -> None:
    """A norm of another size is refused."""
    refused("E502", QUANTIZER.restore, dataclasses.replace(CODE, norm_payload=bytes(size)))


@pytest.mark.parametrize("index", [12, 15])
def test_indices_name_codewords(index: int) -> None:
    """An index from N on is refused, though its bits have room for it."""
    assert PROFILE.wire_index_bits == 4
    damaged = dataclasses.replace(CODE, indices=bytes([0, index << 4]))
    assert str(index) in refused("E502", QUANTIZER.restore, damaged)


@pytest.mark.parametrize("indices", [b"", b"\0", b"\0\0\0"])
def test_indices_have_one_size(indices: bytes) -> None:
    """A byte too few or too many is refused."""
    refused("E502", QUANTIZER.restore, dataclasses.replace(CODE, indices=indices))


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": "fib_code_v2"},
        {"profile_digest": "blake3:" + 64 * "0"},
        {"codebook_digest": ""},
        {"rotation_digest": ""},
        {"ambient_dim": 24},
        {"block_dim": 4},
        {"norm_format": NormFormat.F32_REFERENCE},
        {"wire_index_bits": 5},
        {"block_count": 3},
    ],
    ids=str,
)
def test_codes_of_other_tables(change: dict[str, Any]) -> None:
    """A code whose header is not the quantizer's is refused, an empty digest too."""
    damaged = dataclasses.replace(CODE, **change)
    assert damaged.digest() != CODE.digest()
    assert next(iter(change)) in refused("E502", QUANTIZER.restore, damaged)


def test_codes_survive_json() -> None:
    """A code comes back from its JSON; an unknown key or a byte of 256 is refused."""
    value = CODE.to_json()
    assert FibCodeV1.from_json(value) == CODE
    for wrong, pointer in (
        (value | {"more": 1}, "/more"),
        (value | {"indices": [0, 256]}, "/indices/1"),
        (value | {"schema_version": "fib_code_v2"}, "/schema_version"),
    ):
        with pytest.raises(ProfileError) as refusal:
            FibCodeV1.from_json(wrong)
        assert refusal.value.pointer == pointer

"""Vector profiles: defaults, both field sets, rates."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvq_cli.contract.fields import U64
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import DirectionMethod, LloydMode, RadiusMethod
from kvq_cli.errors import ProfileError

PROFILE = FibQuantProfileV1.paper_default(128, 4, 256, 42)


@settings(deadline=None, max_examples=100)
@given(
    blocks=st.integers(2, 16),
    k=st.integers(1, 256),
    size=st.integers(2, 2**18),
    seed=st.integers(0, U64),
    mode=st.sampled_from([None, *LloydMode]),
)
def test_profiles_survive_json(
    blocks: int, k: int, size: int, seed: int, mode: LloydMode | None
) -> None:
    """A default profile is valid and comes back from its text with the same digest."""
    profile = FibQuantProfileV1.paper_default(blocks * k, k, size, seed, mode)
    again = FibQuantProfileV1.from_json(json.loads(profile.compact()))
    assert again == profile
    assert again.digest() == profile.digest()
    assert profile.block_count == blocks


def test_lloyd_mode_is_a_field_of_its_own() -> None:
    """The 19-field set and both modes of the 20-field set have three digests."""
    profiles = [PROFILE, *(dataclasses.replace(PROFILE, lloyd_mode=mode) for mode in LloydMode)]
    assert [len(profile.to_json()) for profile in profiles] == [19, 20, 20]
    assert len({profile.digest() for profile in profiles}) == 3
    assert list(profiles[1].to_json())[-1] == "lloyd_mode"


@pytest.mark.parametrize(
    ("k", "radius", "direction"),
    [
        (1, RadiusMethod.BETA_QUANTILE, DirectionMethod.ROBERTS_KRONECKER),
        (2, RadiusMethod.K2_CLOSED_FORM, DirectionMethod.FIBONACCI_SPIRAL),
        (3, RadiusMethod.BETA_QUANTILE, DirectionMethod.FIBONACCI_SPHERE),
        (4, RadiusMethod.BETA_QUANTILE, DirectionMethod.ROBERTS_KRONECKER),
    ],
)
def test_methods_follow_the_block(k: int, radius: RadiusMethod, direction: DirectionMethod) -> None:
    """Radius and direction are those prescribed for k."""
    profile = FibQuantProfileV1.paper_default(12, k, 16, 1)
    assert (profile.radius_method, profile.direction_method) == (radius, direction)


@pytest.mark.parametrize(("size", "samples"), [(2, 256), (9, 270), (2**20, 10_000_000)])
def test_default_samples(size: int, samples: int) -> None:
    """Training takes 30 N samples, at least 256 and at most the limit."""
    assert FibQuantProfileV1.paper_default(8, 4, size, 1).training_samples == samples


@pytest.mark.parametrize("size", [2, 3, 4, 255, 256, 257, 2**20])
def test_index_bits(size: int) -> None:
    """The index width is the least that tells N codewords apart."""
    bits = FibQuantProfileV1.paper_default(8, 4, size, 1).wire_index_bits
    assert 2 ** (bits - 1) < size <= 2**bits


@pytest.mark.parametrize(
    ("parts", "error_id", "pointer"),
    [
        ((0, 2, 4, 1), "E401", "/ambient_dim"),
        ((8, 0, 4, 1), "E401", "/block_dim"),
        ((8, -2, 4, 1), "E401", "/block_dim"),
        ((10, 4, 4, 1), "E401", "/block_dim"),
        ((8, 8, 4, 1), "E403", "/block_dim"),
        ((8, 2, 1, 1), "E401", "/codebook_size"),
        ((8, 2, 0, 1), "E401", "/codebook_size"),
        ((8, 2, 2**20 + 1, 1), "E404", "/codebook_size"),
        ((8194, 2, 4, 1), "E404", "/ambient_dim"),
        ((8, 2, 4, -1), "E401", "/rotation_seed"),
    ],
)
def test_defaults_are_validated(parts: Any, error_id: str, pointer: str) -> None:
    """Parts that no profile may have are refused, not divided by."""
    with pytest.raises(ProfileError) as refusal:
        FibQuantProfileV1.paper_default(*parts)
    assert (refusal.value.error_id, refusal.value.pointer) == (error_id, pointer)


def test_rates_may_be_off_by_the_tolerance() -> None:
    """A rate within 1e-12 is valid, and is digested as it was written."""
    near = dataclasses.replace(PROFILE, paper_rate_bits_per_coord=2.0 + 4e-13)
    assert near.digest() != PROFILE.digest()


def test_rates_are_written_as_floats() -> None:
    """An integer given for a rate has the digest of the float."""
    whole = dataclasses.replace(PROFILE, paper_rate_bits_per_coord=2, wire_bits_per_coord=2)
    assert whole.digest() == PROFILE.digest()
    assert FibQuantProfileV1.from_json(PROFILE.to_json() | {"wire_bits_per_coord": 2}) == PROFILE


def test_codebook_version_is_free() -> None:
    """The codebook's version is digested and not checked."""
    other = dataclasses.replace(PROFILE, codebook_version="é")
    assert FibQuantProfileV1.from_json(other.to_json()) == other
    assert other.digest() != PROFILE.digest()

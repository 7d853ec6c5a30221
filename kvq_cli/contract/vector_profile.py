"""vector_profile: FibQuantProfileV1, all that a FibQuant vector code depends on.

Spec: formats/contract.md, section "Vector profile".

    paper rate = log2(N) / k        wire bits = ceil(log2(N))        wire rate = wire bits / k

d is ambient_dim, k block_dim, N codebook_size. One schema string covers two field sets: 19
fields, and 20 with lloyd_mode last. The digests differ, so the set that was read is kept.
"""

from __future__ import annotations

import math
from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U8, U64, Fields, shown
from kvq_cli.contract.words import (
    DirectionMethod,
    EmptyCellPolicy,
    LloydMode,
    NormFormat,
    RadiusMethod,
    SourceMode,
)
from kvq_cli.record import record

SCHEMA: Final = "fib_quant_profile_v1"
ROTATION: Final = "qr-gaussian-chacha8-sign-corrected-v1"
CODEBOOK: Final = "fib-quant:paper-core-v1"
# 2^64 divided by the golden ratio keeps the codebook's seed away from the rotation's.
SEED_STEP: Final = 0x9E3779B97F4A7C15

MAX_AMBIENT_DIM: Final = 16_384
MAX_BLOCK_DIM: Final = 256
MAX_CODEBOOK_SIZE: Final = 2**20
MAX_TRAINING_SAMPLES: Final = 10_000_000
MAX_ROTATION_VALUES: Final = 2**24
MAX_CODEBOOK_VALUES: Final = 2**26
MAX_RESTARTS: Final = 1_024
MAX_ITERATIONS: Final = 100_000
RATE_TOLERANCE: Final = 1e-12


@record(kw_only=True)
class FibQuantProfileV1:
    """The fields, in digest order."""

    schema_version: str = SCHEMA
    ambient_dim: int
    block_dim: int
    codebook_size: int
    paper_rate_bits_per_coord: float
    wire_index_bits: int
    wire_bits_per_coord: float
    norm_format: NormFormat = NormFormat.FP16_PAPER
    rotation_seed: int
    rotation_algorithm_version: str = ROTATION
    codebook_seed: int
    codebook_version: str = CODEBOOK
    source_mode: SourceMode = SourceMode.CANONICAL_SPHERICAL_BETA
    radius_method: RadiusMethod
    direction_method: DirectionMethod
    lloyd_restarts: int = 4
    lloyd_iterations: int = 25
    training_samples: int
    empty_cell_policy: EmptyCellPolicy = EmptyCellPolicy.SPLIT_HIGHEST_DISTORTION
    lloyd_mode: LloydMode | None = None  # None: the 19-field set

    @classmethod
    def paper_default(
        cls,
        ambient_dim: int,
        block_dim: int,
        codebook_size: int,
        seed: int,
        lloyd_mode: LloydMode | None = None,
    ) -> Self:
        """The paper's parameters for (d, k, N), valid or ProfileError."""
        bits = _index_bits(codebook_size)
        radius, direction = _methods(block_dim)
        profile = cls(
            ambient_dim=ambient_dim,
            block_dim=block_dim,
            codebook_size=codebook_size,
            paper_rate_bits_per_coord=_per_coord(_log2(codebook_size), block_dim),
            wire_index_bits=bits,
            wire_bits_per_coord=_per_coord(bits, block_dim),
            rotation_seed=seed,
            codebook_seed=(seed + SEED_STEP) & U64,
            radius_method=radius,
            direction_method=direction,
            training_samples=min(max(30 * codebook_size, 256), MAX_TRAINING_SAMPLES),
            lloyd_mode=lloyd_mode,
        )
        profile.validate()
        return profile

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        profile = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            ambient_dim=fields.integer("ambient_dim"),
            block_dim=fields.integer("block_dim"),
            codebook_size=fields.integer("codebook_size"),
            paper_rate_bits_per_coord=fields.number("paper_rate_bits_per_coord"),
            wire_index_bits=fields.integer("wire_index_bits", 0, U8),
            wire_bits_per_coord=fields.number("wire_bits_per_coord"),
            norm_format=fields.choice("norm_format", NormFormat),
            rotation_seed=fields.integer("rotation_seed", 0, U64),
            rotation_algorithm_version=fields.text("rotation_algorithm_version"),
            codebook_seed=fields.integer("codebook_seed", 0, U64),
            codebook_version=fields.text("codebook_version"),
            source_mode=fields.choice("source_mode", SourceMode),
            radius_method=fields.choice("radius_method", RadiusMethod),
            direction_method=fields.choice("direction_method", DirectionMethod),
            lloyd_restarts=fields.integer("lloyd_restarts"),
            lloyd_iterations=fields.integer("lloyd_iterations"),
            training_samples=fields.integer("training_samples"),
            empty_cell_policy=fields.choice("empty_cell_policy", EmptyCellPolicy),
            # A null is not the 19-field set: a reader that takes it would digest 20 fields.
            lloyd_mode=fields.choice("lloyd_mode", LloydMode) if "lloyd_mode" in value else None,
        )
        fields.done()
        profile._check_rules(fields)
        return profile

    def to_json(self) -> dict[str, Any]:
        value = compact.members(self)
        for name in ("paper_rate_bits_per_coord", "wire_bits_per_coord"):
            value[name] = float(value[name])
        if self.lloyd_mode is None:
            del value["lloyd_mode"]
        return value

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        """The digest of a valid profile; an invalid one has none."""
        self.validate()
        return digest.json_digest(SCHEMA, self.compact())

    def validate(self, pointer: str = "") -> None:
        """ProfileError where a field, a limit or a rule between fields does not hold."""
        self.from_json(self.to_json(), pointer)

    @property
    def block_count(self) -> int:
        """Blocks of one vector."""
        return self.ambient_dim // self.block_dim

    def _check_rules(self, fields: Fields) -> None:
        self._check_dims(fields)
        self._check_supported(fields)
        self._check_rates(fields)
        _within(fields, "lloyd_restarts", self.lloyd_restarts, 1, MAX_RESTARTS)
        _within(fields, "lloyd_iterations", self.lloyd_iterations, 1, MAX_ITERATIONS)
        low = self.codebook_size
        _within(fields, "training_samples", self.training_samples, low, MAX_TRAINING_SAMPLES)

    def _check_dims(self, fields: Fields) -> None:
        d, k, size = self.ambient_dim, self.block_dim, self.codebook_size
        _within(fields, "ambient_dim", d, 1, MAX_AMBIENT_DIM)
        if not 1 <= k <= d:
            fields.refuse("block_dim", f"{k} is not in 1..{d}, the ambient_dim")
        if k == d:
            fields.refuse(
                "block_dim", f"{k} is the whole ambient_dim, which is unsupported", "E403"
            )
        if d % k:
            fields.refuse("block_dim", f"ambient_dim {d} is not divisible by block_dim {k}")
        _within(fields, "block_dim", k, 1, MAX_BLOCK_DIM)
        _within(fields, "codebook_size", size, 2, MAX_CODEBOOK_SIZE)
        _at_most(fields, "ambient_dim", "rotation values", d * d, MAX_ROTATION_VALUES)
        _at_most(fields, "codebook_size", "codebook values", size * k, MAX_CODEBOOK_VALUES)

    def _check_supported(self, fields: Fields) -> None:
        radius, direction = _methods(self.block_dim)
        for name, found, expected in (
            ("norm_format", self.norm_format, NormFormat.FP16_PAPER),
            ("source_mode", self.source_mode, SourceMode.CANONICAL_SPHERICAL_BETA),
            ("rotation_algorithm_version", self.rotation_algorithm_version, ROTATION),
            ("radius_method", self.radius_method, radius),
            ("direction_method", self.direction_method, direction),
        ):
            if found != expected:
                fields.refuse(name, f"{shown(found)}, only {expected} is supported here", "E403")

    def _check_rates(self, fields: Fields) -> None:
        bits = _index_bits(self.codebook_size)
        if self.wire_index_bits != bits:
            found = f"{self.wire_index_bits}, {self.codebook_size} codewords need {bits}"
            fields.refuse("wire_index_bits", found)
        for name, width in (
            ("paper_rate_bits_per_coord", _log2(self.codebook_size)),
            ("wire_bits_per_coord", bits),
        ):
            found, rate = getattr(self, name), _per_coord(width, self.block_dim)
            if abs(found - rate) > RATE_TOLERANCE:
                fields.refuse(name, f"{found!r}, expected {rate!r}")


def _within(fields: Fields, name: str, found: int, low: int, high: int) -> None:
    if found < low:
        fields.refuse(name, f"{found} is not in {low}..{high}")
    _at_most(fields, name, name, found, high)


def _at_most(fields: Fields, name: str, what: str, found: int, high: int) -> None:
    if found > high:
        fields.refuse(name, f"{what} {found}, at most {high} allowed", "E404")


def _methods(k: int) -> tuple[RadiusMethod, DirectionMethod]:
    """The one pair of methods for a block dimension."""
    if k == 2:
        return RadiusMethod.K2_CLOSED_FORM, DirectionMethod.FIBONACCI_SPIRAL
    if k == 3:
        return RadiusMethod.BETA_QUANTILE, DirectionMethod.FIBONACCI_SPHERE
    return RadiusMethod.BETA_QUANTILE, DirectionMethod.ROBERTS_KRONECKER


def _index_bits(codebook_size: int) -> int:
    return (codebook_size - 1).bit_length()


def _log2(codebook_size: int) -> float:
    """log2(N) as the C library has it, as in the reference; exact for powers of two."""
    return math.log2(codebook_size) if codebook_size > 0 else 0.0


def _per_coord(bits: float, k: int) -> float:
    return bits / k if k > 0 else 0.0

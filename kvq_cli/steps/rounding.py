"""rounding: a transform as integers, which is what a calibration holds.

Spec: formats/transform.md, sections "Basis table" and "Forward matrices".

    forward   M · 2^(out - in), its columns' largest in [2^14, 2^15)
    in        a standard deviation of the dimension is in [2^9, 2^10) units of 2^-in
    restore   R · 2^exponent, the norm of its columns in [2^11, 2^12)

How large a number is comes from its own exponent; no logarithm decides.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.basis import MAX_EXPONENT, Group
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.steps.transforms import Transform
from kvq_cli.words import Role

INPUT_BITS: Final = 10
COLUMN_BITS: Final = 15
NORM_BITS: Final = 12
MAX_OUT: Final = 200


@record(eq=False)
class Forward:
    """What an encoder needs: y_c = 2^-out_c · Σ round((x_d - m_d) · 2^in_d) · matrix_dc."""

    matrix: NDArray[np.int16]  # (n, rank)
    inward: NDArray[np.int16]  # (n,)
    outward: NDArray[np.int16]  # (rank,)


@record(eq=False)
class Place:
    """Which layers a group is made of."""

    role: Role
    first: int
    layers: int
    heads: int
    channels: int
    turn: int | None


def forward_of(transform: Transform) -> Forward:
    inward = _exponents(transform.deviations, INPUT_BITS, MAX_EXPONENT)
    scaled = np.ldexp(transform.forward, -inward[:, None].astype(np.int32))
    outward = _exponents(np.abs(scaled).max(axis=0, initial=0.0), COLUMN_BITS, MAX_OUT)
    whole = np.rint(np.ldexp(scaled, outward.astype(np.int32)))
    # What is rounded up to 2^15 has no place any more.
    high = np.abs(whole).max(axis=0, initial=0.0) >= 2**COLUMN_BITS
    outward = outward - high.astype(np.int16)
    whole = np.rint(np.ldexp(scaled, outward.astype(np.int32)))
    return Forward(whole.astype(np.int16), inward, outward)


def group_of(transform: Transform, place: Place) -> Group:
    norms = np.sqrt(np.square(transform.restore).sum(axis=0))
    exponents = _exponents(norms, NORM_BITS, MAX_EXPONENT)
    whole = np.rint(np.ldexp(transform.restore, exponents.astype(np.int32)))
    limit = 2**COLUMN_BITS - 1  # passed only where an exponent was held back
    return Group(
        role=place.role,
        first=place.first,
        layers=place.layers,
        heads=place.heads,
        channels=place.channels,
        turn=place.turn,
        means=transform.mean.astype(np.float32),
        exponents=exponents,
        restore=np.clip(whole, -limit, limit).astype(np.int16),
    )


def _exponents(sizes: Floats, bits: int, most: int) -> NDArray[np.int16]:
    """e so that size · 2^e is in [2^(bits - 1), 2^bits); 0 for nothing."""
    _, found = np.frexp(sizes)
    held = np.clip(bits - found, -most, most)
    return np.where(sizes > 0, held, 0).astype(np.int16)

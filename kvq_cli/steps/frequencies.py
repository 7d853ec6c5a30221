"""frequencies: how far each pair of channels turns from one position to the next.

Spec: formats/transform.md, section "Rotary positions".

    plain     f = theta ** (-2 i / R), R channels that turn
    linear    f / factor
    llama3    f where a turn takes few positions, f / factor where it takes many, between between
    yarn      likewise, by the number of the pair; its attention factor is apart

Decimal arithmetic of 50 digits, so that the same numbers come out everywhere. A turn of p
positions is p times a fraction of a circle, in 128-bit fixed point, so that p may be large.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs.basis import UNIT
from kvq_cli.quality.rope import sin_cos

Numbers: TypeAlias = Mapping[str, Decimal]  # what a scaling says
Frequencies: TypeAlias = tuple[Decimal, ...]  # radians a position

_DIGITS: Final = Context(prec=50)
_PI: Final = Decimal("3.14159265358979323846264338327950288419716939937510582")
_TWO_PI: Final = _DIGITS.multiply(_PI, 2)
_ONE: Final = Decimal(1)
_BITS: Final = 128  # of a fraction of a circle
_KEPT: Final = 53  # of which a float holds so many


def plain(theta: Decimal, channels: int) -> Frequencies:
    base = _DIGITS.ln(theta)
    powers = (_DIGITS.divide(Decimal(-at), channels) for at in range(0, channels, 2))
    return tuple(_DIGITS.exp(_DIGITS.multiply(base, power)) for power in powers)


def _linear(plainly: Frequencies, theta: Decimal, told: Numbers) -> Frequencies:
    del theta
    return tuple(_DIGITS.divide(each, told["factor"]) for each in plainly)


def _llama3(plainly: Frequencies, theta: Decimal, told: Numbers) -> Frequencies:
    del theta
    low, high = told["low_freq_factor"], told["high_freq_factor"]

    def scaled(each: Decimal) -> Decimal:
        turns = told["original_max_position_embeddings"] * each / _TWO_PI
        share = min(max((turns - low) / (high - low), Decimal(0)), _ONE)  # that stays
        return each * (share + (1 - share) / told["factor"])

    return tuple(map(scaled, plainly))


def _yarn(plainly: Frequencies, theta: Decimal, told: Numbers) -> Frequencies:
    channels = 2 * len(plainly)

    def pair(turns: Decimal) -> Decimal:
        """The pair, a fraction perhaps, that turns so often within the old length."""
        ratio = told["original_max_position_embeddings"] / (turns * _TWO_PI)
        return channels * _DIGITS.ln(ratio) / (2 * _DIGITS.ln(theta))

    low, high = pair(told["beta_fast"]), pair(told["beta_slow"])
    if told["truncate"]:
        low, high = low.to_integral(ROUND_FLOOR), high.to_integral(ROUND_CEILING)
    low, high = max(low, Decimal(0)), min(high, Decimal(channels - 1))
    if low == high:
        high += Decimal("0.001")

    def scaled(at: int, each: Decimal) -> Decimal:
        share = min(max((at - low) / (high - low), Decimal(0)), _ONE)  # that is scaled
        return each * (1 - share + share / told["factor"])

    return tuple(scaled(at, each) for at, each in enumerate(plainly))


def yarn_attention(told: Numbers) -> Decimal:
    """What yarn multiplies cosines and sines with."""
    if "attention_factor" in told:
        return told["attention_factor"]

    def of(scale: Decimal) -> Decimal:
        grown = scale * _DIGITS.ln(told["factor"]) / 10
        return 1 + grown if told["factor"] > 1 else _ONE

    if told.get("mscale") and told.get("mscale_all_dim"):
        return of(told["mscale"]) / of(told["mscale_all_dim"])
    return of(_ONE)


SCALINGS: Final[Mapping[str, Callable[[Frequencies, Decimal, Numbers], Frequencies]]] = {
    "default": lambda plainly, _, __: plainly,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
}


def table(frequencies: Sequence[Decimal], step: int, count: int) -> NDArray[np.int32]:
    """Cosines and sines of the positions 0, step, 2 step, ...: (count, pairs, 2)."""
    whole = _DIGITS.divide(Decimal(1 << _BITS), _TWO_PI)
    circles = [int(_DIGITS.multiply(each, whole)) for each in frequencies]
    mask = (1 << _BITS) - 1
    rest = [
        [(at * step * each & mask) >> (_BITS - _KEPT) for each in circles] for at in range(count)
    ]
    angles = np.array(rest, np.float64) * (2.0**-_KEPT * float(_TWO_PI))
    sines, cosines = sin_cos(angles)
    found: NDArray[np.int32] = np.rint(np.stack([cosines, sines], axis=-1) / UNIT).astype(np.int32)
    return found

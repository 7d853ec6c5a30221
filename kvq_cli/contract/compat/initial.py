"""initial: the codebook before training, radii times directions.

Spec: formats/fibquant-compat.md, section "First codebook".

    radius n      √(quantile of (n - 1/2) / N), n = 1..N
    k = 2         1 - (1 - q)^(4 / d); points at n golden angles of the circle
    k = 3         beta quantile; Fibonacci points of the sphere
    k >= 4        beta quantile; Kronecker sequence of Roberts, normal quantiles, normalised

sin, cos and pow are the machine's, as in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.beta_inverse import BetaQuantile
from kvq_cli.contract.compat.normal_inverse import normal_quantile
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import ProfileError

GOLDEN_RATIO: Final = 1.618033988749895
_TURN: Final = 1.0 - 1.0 / GOLDEN_RATIO
_TWO_PI: Final = 2.0 * math.pi
_MARGIN: Final = 1e-12  # of fractions, from 0 and from 1
_PHI_HALVINGS: Final = 128


def initial_codewords(profile: FibQuantProfileV1) -> NDArray[np.float64]:
    """The (N, k) codewords that training starts from; ProfileError for k = 1."""
    k, size = profile.block_dim, profile.codebook_size
    if k == 1:
        raise ProfileError("E403", "no codebook can be built for block_dim 1", "/block_dim")
    radius = _radius(profile.ambient_dim, k)
    words = [
        [radius((n - 0.5) / size) * coordinate for coordinate in direction]
        for n, direction in enumerate(_directions(k, size), 1)
    ]
    return np.array(words)


def _radius(d: int, k: int) -> Callable[[float], float]:
    if k == 2:
        return lambda q: math.sqrt(1.0 - math.pow(1.0 - q, 4.0 / d))
    # The density of the source to the power k / (k + 2), which is a beta density again.
    companded = (k / (k + 2.0)) * ((d - k - 2.0) / 2.0) + 1.0
    quantile = BetaQuantile(k / 2.0, companded)
    return lambda q: math.sqrt(quantile(q))


def _directions(k: int, size: int) -> Iterator[list[float]]:
    if k == 2:
        return _circle(size)
    return _sphere(size) if k == 3 else _kronecker(k, size)


def _circle(size: int) -> Iterator[list[float]]:
    for at in range(size):
        angle = _TWO_PI * at * _TURN
        yield [math.cos(angle), math.sin(angle)]


def _sphere(size: int) -> Iterator[list[float]]:
    for at in range(size):
        height = 1.0 - (2.0 * (at + 1) - 1.0) / size
        angle = _TWO_PI * at * _TURN
        ring = math.sqrt(max(1.0 - height * height, 0.0))
        yield [ring * math.cos(angle), ring * math.sin(angle), height]


def _kronecker(k: int, size: int) -> Iterator[list[float]]:
    phi = _phi(k)
    steps = [1.0 / integer_power(phi, j) for j in range(1, k + 1)]
    for at in range(size):
        fractions = [math.fmod((at + 0.5) * step, 1.0) for step in steps]
        yield _normalised(
            [normal_quantile(min(max(each, _MARGIN), 1.0 - _MARGIN)) for each in fractions]
        )


def _phi(k: int) -> float:
    """The root above 1 of x^(k + 1) = x + 1."""
    low, high = 1.0, 2.0
    for _ in range(_PHI_HALVINGS):
        middle = (low + high) / 2.0
        if integer_power(middle, k + 1) - middle - 1.0 > 0.0:
            high = middle
        else:
            low = middle
    return (low + high) / 2.0


def integer_power(base: float, exponent: int) -> float:
    """By squaring, as compilers do it; the machine's pow rounds otherwise."""
    result = 1.0
    while True:
        if exponent & 1:
            result *= base
        exponent >>= 1
        if not exponent:
            return result
        base *= base


def _normalised(values: list[float]) -> list[float]:
    square = 0.0
    for value in values:
        square += value * value
    norm = math.sqrt(square)
    return [value / norm for value in values]

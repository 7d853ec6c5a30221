"""training: the blocks that a codebook is trained on.

Spec: formats/fibquant-compat.md, section "Training set".

    r² = a / (a + b), a ~ Gamma(k / 2), b ~ Gamma((d - k) / 2)
    block = r · (k normals, normalised)

That is the law of k coordinates of a uniformly rotated unit vector in d dimensions.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.draws import Draws
from kvq_cli.contract.vector_profile import FibQuantProfileV1

SEED_MASK: Final = 0x465155414E54


def training_set(profile: FibQuantProfileV1) -> NDArray[np.float64]:
    """The (samples, k) blocks of a profile."""
    d, k = profile.ambient_dim, profile.block_dim
    draws = Draws(profile.codebook_seed ^ SEED_MASK)
    samples = np.empty((profile.training_samples, k))
    for at in range(len(samples)):
        samples[at] = _sample(draws, d, k)
    return samples


def _sample(draws: Draws, d: int, k: int) -> list[float]:
    a, b = draws.gamma(k / 2.0), draws.gamma((d - k) / 2.0)
    radius = math.sqrt(a / (a + b))
    normals = [draws.normal() for _ in range(k)]
    square = 0.0
    for value in normals:
        square += value * value
    norm = math.sqrt(square)
    return [radius * (value / norm) for value in normals]

"""calibrating: captures of a model that is not there, whose rows lie near a plane of few axes.

    write_captures(folder, 3)      a.safetensors, b.…, c.…, each with its queries beside it
    rows(seed, …)                  keys before they are turned, and values: (L, H, T, D)
    turned(rows, positions, …)     by complex numbers, another way than kvq does it

All captures of a folder share the axes and the means; tokens are their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from support.captures import safetensors_bytes

LAYERS, HEADS, GROUPED, CHANNELS, AXES = 3, 2, 2, 8, 6
THETA = 10000.0
NAMES = "abcdefgh"
METADATA = {
    "model": "none",
    "rope_state": "post",
    "rope_theta": str(THETA),
    "rope_style": "half-rotated",
    "text": "made up",
}


def rows(seed: int, tokens: int, role: int, layers: int = LAYERS, channels: int = CHANNELS):
    """Rows of all layers from a few axes, with a mean and a little noise: (L, H, T, D)."""
    model = np.random.default_rng(100 + role)
    size = layers * HEADS * channels
    axes, mean = model.standard_normal((AXES, size)), model.standard_normal(size)
    own = np.random.default_rng([seed, role])
    found = own.standard_normal((tokens, AXES)) @ axes + 3 * mean
    found += 0.05 * own.standard_normal((tokens, size))
    return found.reshape(tokens, layers, HEADS, channels).transpose(1, 2, 0, 3)


def turned(rows, positions, theta=THETA, *, interleaved=False, back=False, turning=None):
    """Rows (…, T, D) times e^(±i angle), channels taken for complex numbers."""
    turning = turning or rows.shape[-1]
    pairs = turning // 2
    angles = np.asarray(positions)[:, None] * theta ** (-2 * np.arange(pairs) / turning)
    part = rows[..., :turning]
    if interleaved:
        one, other = part[..., 0::2], part[..., 1::2]
    else:
        one, other = part[..., :pairs], part[..., pairs:]
    found = (one + 1j * other) * np.exp(1j * angles * (-1 if back else 1))
    out = rows.copy()
    if interleaved:
        out[..., 0:turning:2], out[..., 1:turning:2] = found.real, found.imag
    else:
        out[..., :pairs], out[..., pairs:turning] = found.real, found.imag
    return out


def capture(
    seed: int, tokens: int = 200, metadata: dict[str, str] | None = None, **shape: int
) -> bytes:
    """A canonical capture in F32, its keys turned where the metadata says so."""
    told = METADATA if metadata is None else metadata
    key, value = rows(seed, tokens, 0, **shape), rows(seed, tokens, 1, **shape)
    if told.get("rope_state") == "post":
        key = turned(key, np.arange(tokens), interleaved=told.get("rope_style") == "interleaved")
    tensors = {
        name: ("F32", (1, *each.shape), each.astype("<f4").tobytes())
        for name, each in (("key", key), ("value", value))
    }
    return safetensors_bytes(tensors, told)


def queries(seed: int, positions: Sequence[int], layers: int = LAYERS) -> bytes:
    """Causal queries of two query heads for each kv head."""
    asked = np.random.default_rng([seed, 9]).standard_normal(
        (1, layers, HEADS * GROUPED, len(positions), CHANNELS)
    )
    places = np.array(positions, "<i8")
    return safetensors_bytes(
        {
            "query": ("F32", asked.shape, asked.astype("<f4").tobytes()),
            "positions": ("I64", places.shape, places.tobytes()),
        },
        {"causal": "true", "rope_state": "post"},
    )


def write_captures(
    folder: Path,
    count: int,
    tokens: int = 200,
    metadata: dict[str, str] | None = None,
    *,
    asked: bool = True,
) -> list[Path]:
    """So many captures, with queries at each tenth position beside them."""
    found = []
    for seed, name in enumerate(NAMES[:count]):
        path = folder / f"{name}.safetensors"
        path.write_bytes(capture(seed, tokens, metadata))
        if asked:
            beside = folder / f"{name}.query.safetensors"
            beside.write_bytes(queries(seed, range(5, tokens, 10)))
        found.append(path)
    return found

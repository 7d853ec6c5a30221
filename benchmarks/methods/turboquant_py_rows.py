"""turboquant-py: TurboQuant in NumPy and float64, each code in a byte.

Its other mode, for inner products, is left out: dequantize does not read the signs, so it gives
what this one gives for a bit less.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

from benchmarks.methods import Method, apart, nbytes, packed

PACKAGES: Final = ("turboquant-py", "numpy")
turboquant: Final = apart("turboquant-py", "turboquant")
# Where it finds torch it multiplies matrices with it, which takes longer.
apart("turboquant-py", "turboquant._accel").has_torch = lambda: False


@cache
def tool(bits: int, channels: int) -> Any:
    return turboquant.TurboQuant(channels, bits, mode="mse", seed=0)


def encode(bits: int, block: Any) -> Any:
    return tool(bits, block.shape[-1]).quantize(block.reshape(-1, block.shape[-1]))


def decode(encoded: Any) -> Any:
    return tool(encoded.bit_width, encoded.dim).dequantize(encoded)


def stored(encoded: Any) -> int:
    """All bits of codes, and norms as float32, which would do; it keeps them as float64."""
    return packed(encoded.indices.size, encoded.bit_width) + 4 * len(encoded.norms)


def held(encoded: Any) -> int:
    return nbytes([encoded.indices, encoded.norms])


def methods(_heads: int) -> list[Method]:
    note = "gives F64"
    return [
        Method(f"turboquant-py mse {bits}", partial(encode, bits), decode, stored, held, note=note)
        for bits in (4, 3, 2)
    ]

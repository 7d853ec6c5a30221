"""turboquant-pro: TurboQuantKV, the NumPy side of it, codes in bytes or packed."""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

from turboquant_pro import TurboQuantKV

from benchmarks.methods import Method, nbytes, packed

PACKAGES: Final = ("turboquant-pro", "numpy")
NOTES: Final = {4: "its levels are not Lloyd-Max's", 3: "its levels are not Lloyd-Max's", 2: ""}


@cache
def tool(bits: int, channels: int) -> Any:
    return TurboQuantKV(channels, bits=bits, use_gpu=False, seed=0)


def encode(bits: int, pack: bool, block: Any) -> Any:
    """A block of (N, T, D) is a batch of one to it: (1, N, T, D)."""
    return tool(bits, block.shape[-1]).compress(block[None], packed=pack)


def decode(encoded: Any) -> Any:
    return tool(encoded.bits, encoded.shape[-1]).decompress(encoded)


def stored(encoded: Any) -> int:
    return packed(encoded.n_values, encoded.bits) + nbytes(encoded.norms)


def held(encoded: Any) -> int:
    return nbytes([encoded.indices, encoded.norms])


def methods(_heads: int) -> list[Method]:
    return [
        Method(
            f"turboquant-pro {bits}{', packed' if pack else ''}",
            partial(encode, bits, pack),
            decode,
            stored,
            held,
            note=note,
        )
        for pack in (False, True)
        for bits, note in NOTES.items()
    ]

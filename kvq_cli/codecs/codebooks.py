"""codebooks: the codebooks that come with kvq, and what codecs need of any codebook.

Spec: formats/codebooks.md.

    codebook(channels, block, size)    N codewords of k coordinates for rows of D channels

A file of the package has all that share k and N. It holds the bases of each, from which the
symmetry makes the codewords; their digest is checked. Nothing is read before it is asked for.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli import digest
from kvq_cli.errors import CodecError
from kvq_cli.numerics.nearest import Search, grid, search
from kvq_cli.numerics.symmetry import Symmetry, expand
from kvq_cli.record import record

FOLDER: Final = Path(__file__).parent.parent / "codebooks"
TAG: Final = "kvq_codebook_v1"
SIZES: Final = ((2, 64), (2, 256), (4, 32), (4, 256), (4, 1024), (4, 4096), (8, 256), (16, 256))
CHANNELS: Final = (32, 64, 80, 96, 128, 192, 256)


@record(eq=False)
class Codebook:
    """Codewords, and what encoders and decoders make of them once."""

    codewords: NDArray[np.int16]  # (N, k), in units of 2**-grid
    points: NDArray[np.float32]  # the same
    digest: str
    search: Search

    @classmethod
    def of(cls, codewords: NDArray[np.int16]) -> Codebook:
        """ValueError where they are too many or too large."""
        held, points = codewords.copy(), codewords.astype(np.float32)
        for array in (held, points):
            array.flags.writeable = False
        return cls(held, points, digest_of(codewords), search(codewords))


@cache
def codebook(channels: int, block: int, size: int) -> Codebook:
    """The one that comes with kvq; CodecError where there is none for these numbers."""
    if (block, size) not in SIZES or channels not in CHANNELS:
        pairs = ", ".join(f"({k}, {n})" for k, n in SIZES)
        raise CodecError(
            "E501",
            f"no built-in codebook of {size} codewords of {block} coordinates for rows of "
            f"{channels} channels, only of (coordinates, codewords) {pairs}, "
            f"for {', '.join(map(str, CHANNELS))} channels",
        )
    stored = _file(block, size)
    found = stored["books"][str(channels)]
    symmetry = Symmetry(block, tuple(stored["runs"]))
    made = Codebook.of(expand(symmetry, [tuple(base) for base in found["bases"]]))
    if made.codewords.shape != (size, block) or made.digest != found["digest"]:
        raise AssertionError(f"{FOLDER.name}/{block}-{size}.json is damaged")
    return made


@cache
def _file(block: int, size: int) -> dict[str, Any]:
    stored: dict[str, Any] = json.loads((FOLDER / f"{block}-{size}.json").read_bytes())
    return stored


def digest_of(codewords: NDArray[np.int16]) -> str:
    """The digest of a codebook: k, N and grid as u32, codewords as i16, all little-endian."""
    size, block = codewords.shape
    head = np.array([block, size, grid(block)], "<u4").tobytes()
    return digest.text(digest.tagged(TAG, [head, codewords.astype("<i2").tobytes()]))

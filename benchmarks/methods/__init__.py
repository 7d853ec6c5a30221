"""methods: ways to make keys and values smaller, one file a package, all behind one interface.

Each module has methods(heads) and PACKAGES, the distributions whose versions are told; it has
set_threads(count) where its package runs on threads of its own. A worker imports one module, in
an environment that has what it needs. Blocks are (N, T, D), F16, C-contiguous; what a package
wants in another shape is a view of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

# Module, and whether it needs no environment but kvq's own.
MODULES: Final[dict[str, bool]] = {
    "kvq_codecs": True,
    "numpy_plain": True,
    "zstd_frames": True,
    "ml_dtypes_casts": False,
    "torch_casts": False,
    "quanto_groups": False,
    "hqq_groups": False,
    "gguf_blocks": False,
    "blosc2_frames": False,
    "zipnn_frames": False,
    "pcodec_frames": False,
}


def same(encoded: Any) -> Any:
    return encoded


def nbytes(parts: Any) -> int:
    """Bytes of an array, of bytes, or of all in a tuple, a list or a dict's values."""
    if isinstance(parts, dict):
        return nbytes(list(parts.values()))
    if isinstance(parts, (tuple, list)):
        return sum(map(nbytes, parts))
    return len(parts) if isinstance(parts, (bytes, bytearray)) else int(parts.nbytes)


@dataclass(frozen=True, slots=True)
class Method:
    """One way: what it is called, its two calls, and what its result takes."""

    name: str
    encode: Callable[[NDArray[np.float16]], Any]
    decode: Callable[[Any], Any]  # anything that NumPy takes for an array of as many elements
    stored: Callable[[Any], int] = nbytes  # bytes that decoding needs, scales and all
    held: Callable[[Any], int] | None = None  # bytes kept in memory, where that is more
    keep: Callable[[Any], Any] = same  # a result that outlives the next call
    baseline: bool = False  # no rival: a bound
    note: str = ""

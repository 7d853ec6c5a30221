"""methods: ways to make keys and values smaller, one file a package, all behind one interface.

Each module has methods(heads) and PACKAGES, the distributions whose versions are told; it has
set_threads(count) where its package runs on threads of its own. A worker imports one module, in
an environment that has what it needs. Blocks are (N, T, D), F16, C-contiguous; what a package
wants in another shape is a view of them.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
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
    "turboquant_rows": False,
    "turboquant_pro_rows": False,
    "turboquant_torch_rows": False,
    "turboquant_kv_rows": False,
    "turboquant_py_rows": False,
    "turboquantcpu_rows": False,
    "turbokv_rows": False,
    "polarquant_rows": False,
}


def same(encoded: Any) -> Any:
    return encoded


def apart(distribution: str, module: str) -> Any:
    """A module of a distribution that make_peers put into a folder of its own."""
    folder = str(Path(sys.prefix) / "apart" / distribution)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(module)


def packed(codes: int, bits: int) -> int:
    """Bytes of so many codes side by side: for packages that keep each in bytes of its own."""
    return -(-codes * bits // 8)


def nbytes(parts: Any) -> int:
    """Bytes of an array, of bytes, or of all in a tuple, a list or a dict's values."""
    if isinstance(parts, dict):
        return nbytes(list(parts.values()))
    if isinstance(parts, (tuple, list)):
        return sum(map(nbytes, parts))
    return len(parts) if isinstance(parts, (bytes, bytearray)) else int(parts.nbytes)


@dataclass(frozen=True, slots=True)
class Later:
    """A tensor of BF16, which NumPy lacks: it becomes an array where one is asked for."""

    tensor: Any

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.tensor.float().numpy(), dtype, copy=copy)


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

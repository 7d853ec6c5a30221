"""turboquantcpu: a Hadamard transform in C and levels in NumPy, each code in a byte.

Two things are put right first. Its installer builds the C under a name that the package does not
look for, so that it would run on NumPy alone, 1.5 to 4 times as slow. And its inverse turns signs
before the transform, not after it, and gives back nothing like the rows; here the same calls run
in the right order. Its other modes give scores and no rows.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from turboquantcpu.turbo import TurboQuantizer

from benchmarks.methods import Method, nbytes, packed

PACKAGES: Final = ("turboquantcpu", "numpy")
RIGHT: Final = "its C found for it, its inverse put right"
NOTES: Final = {4: f"{RIGHT}; its levels are not Lloyd-Max's", 3: RIGHT, 2: RIGHT}
fwht: Final = importlib.import_module("turboquantcpu.fwht")  # the package has a function so called
_local = threading.local()


@contextmanager
def _under_its_name() -> Iterator[None]:
    """The library that was built, wherever one of its name is looked for."""
    (built,) = Path(str(fwht.__file__)).parent.glob("_tqcpu_kernels*.so")
    library, exists = ctypes.CDLL(str(built)), os.path.exists
    with (
        mock.patch("ctypes.CDLL", return_value=library),
        mock.patch("os.path.exists", lambda path: "_tqcpu_kernels" in str(path) or exists(path)),
    ):
        yield


with _under_its_name():
    if not fwht._try_load_c_ext():  # noqa: SLF001 - it has no public way
        raise ImportError("turboquantcpu was built without its C")


def tool(bits: int, channels: int) -> Any:
    """One a thread: each has a thread of its own, for which others would wait."""
    tools: dict[tuple[int, int], Any] = _local.__dict__.setdefault("tools", {})
    if (bits, channels) not in tools:
        tools[bits, channels] = TurboQuantizer(channels, 1, mode="mse", bits=bits, n_threads=1)
    return tools[bits, channels]


def encode(bits: int, block: Any) -> Any:
    """All rows as tokens of one head: one call of the transform."""
    return tool(bits, block.shape[-1]).compress(block.reshape(-1, 1, block.shape[-1]))


def decode(encoded: Any) -> Any:
    quantizer = tool(encoded.bits, encoded.head_dim)
    scale, signs = quantizer._coord_scale, quantizer._signs_mse[0]  # noqa: SLF001 - likewise
    levels = quantizer._codebook.dequantize(encoded.indices[:, 0]) / scale  # noqa: SLF001 - likewise
    rows = fwht.randomized_fwht_batch(levels, np.ones_like(signs))
    return rows * signs * encoded.norms.astype(np.float32)


def stored(encoded: Any) -> int:
    return packed(encoded.indices.size, encoded.bits) + nbytes(encoded.norms)


def held(encoded: Any) -> int:
    return int(encoded.memory_bytes())


def methods(_heads: int) -> list[Method]:
    return [
        Method(
            f"turboquantcpu mse {bits}",
            partial(encode, bits),
            decode,
            stored,
            held,
            note=note,
        )
        for bits, note in NOTES.items()
    ]

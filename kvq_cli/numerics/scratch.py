"""scratch: arrays that a thread uses again and again.

The first touch of a big temporary costs more than the arithmetic on it, so every worker
thread owns one Scratch and codecs take their tiles from it. An array is valid until the
same name is taken again. With it come the tables that codecs named in their parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

MAX_VIEWS: Final = 512  # a container with pages of ever new shapes must not fill memory


Tables: TypeAlias = Mapping[str, NDArray[Any]]  # by the digest of their bytes

NO_TABLES: Final[Tables] = MappingProxyType({})


class Scratch:
    """Named buffers that only grow, and tables that nobody writes to."""

    def __init__(self, tables: Tables = NO_TABLES) -> None:
        self.tables = tables
        self._buffers: dict[str, NDArray[np.uint8]] = {}
        self._views: dict[tuple[str, tuple[int, ...], DTypeLike], NDArray[Any]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An uninitialised array; what the name held before is lost."""
        # Making a view costs a microsecond, as much as work on ten thousand elements.
        view = self._views.get((name, shape, dtype))
        if view is None:
            view = self._make(name, shape, np.dtype(dtype))
            self._views[name, shape, dtype] = view
        return view

    def _make(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        nbytes = math.prod(shape) * dtype.itemsize
        buffer = self._buffers.get(name)
        if buffer is None or buffer.nbytes < nbytes:
            buffer = self._buffers[name] = np.empty(nbytes, np.uint8)
            self._views = {key: view for key, view in self._views.items() if key[0] != name}
        if len(self._views) >= MAX_VIEWS:
            self._views.clear()
        return buffer[:nbytes].view(dtype).reshape(shape)

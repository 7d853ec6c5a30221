"""growing: a cache that grows token by token, written as a chain of segments.

    cache = CacheWriter(layers=32, kv_heads=8, head_dim=128, capacity=256, profiles=["int8"])
    for keys, values in steps:                 # (layers, kv_heads, head_dim), or n tokens of them
        if len(cache) == cache.capacity:
            cache.write(f"part{part}.kvq")     # continues the one written before it
        cache.push(keys, values)

What was pushed is held as it is until it is written; nothing is lost before a profile says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import open_capture
from kvq_cli.capture.memory import Memory
from kvq_cli.errors import KvqError, UsageError
from kvq_cli.pipeline import ProfileSource, compress
from kvq_cli.steps.reports import CompressReport
from kvq_cli.words import DType, Role

POSITIONS: Final = "token_positions"
MOST: Final = 1 << 40  # as formats/capture.md has it


class CapacityError(KvqError):
    """More tokens were pushed than there is room for; none of them is held."""

    def __init__(self, capacity: int, position: int) -> None:
        self.capacity, self.position = capacity, position
        super().__init__("E702", f"room for {capacity} tokens, token {position} does not fit")


class CacheWriter:
    """Room for `capacity` tokens of every layer, and the chain that was written so far."""

    def __init__(
        self,
        *,
        layers: int,
        kv_heads: int,
        head_dim: int,
        capacity: int,
        dtype: DType = DType.F16,
        profiles: Sequence[ProfileSource] = (),
        metadata: Mapping[str, str] | None = None,
        continues: Sequence[str | Path] = (),
        calibration: str | Path | None = None,
        refer: bool = False,
    ) -> None:
        """`metadata` is what a capture's would be; `continues` are the containers of a chain.

        `calibration` is one that a profile needs; each segment holds its table, or does but
        `refer` to it.
        """
        sizes = (layers, kv_heads, capacity, head_dim)
        if min(sizes) < 1:
            raise UsageError("E101", "layers, kv_heads, head_dim and capacity are 1 or more")
        self.capacity, self.dtype = capacity, dtype
        self._shape = (layers, kv_heads, head_dim)
        self._bits = {role: np.empty(sizes, dtype.bits) for role in Role}
        self._positions: list[int] | None = None
        self._profiles, self._metadata = tuple(profiles), dict(metadata or {})
        self._calibration, self._refer = calibration, refer
        self._chain, self._count = list(continues), 0

    def __len__(self) -> int:
        """Tokens that are held, and not written."""
        return self._count

    @property
    def positions(self) -> list[int]:
        """The position of each token held: what was told, or else its number."""
        return list(self._positions or range(self._count))

    def push(
        self, keys: NDArray[Any], values: NDArray[Any], positions: Sequence[int] | None = None
    ) -> None:
        """One token, (layers, kv_heads, head_dim), or n, (layers, kv_heads, n, head_dim)."""
        rows = [self._checked(array) for array in (keys, values)]
        count = rows[0].shape[2]
        if rows[1].shape[2] != count:
            raise UsageError("E101", f"{count} keys, {rows[1].shape[2]} values")
        told = self._told(positions, count)
        if self._count + count > self.capacity:
            raise CapacityError(self.capacity, self.capacity)
        for role, each in zip(Role, rows, strict=True):
            self._bits[role][:, :, self._count : self._count + count] = each
        self._positions = told
        self._count += count

    def rows(
        self, role: Role, layer: int, tokens: Sequence[int] | slice = slice(None)
    ) -> NDArray[Any]:
        """What is held of a layer, (kv_heads, tokens, head_dim), as it was pushed."""
        chosen = range(self._count)[tokens] if isinstance(tokens, slice) else list(tokens)
        if not 0 <= layer < self._shape[0]:
            raise UsageError("E101", f"layer {layer}: there are {self._shape[0]}")
        if not all(0 <= token < self._count for token in chosen):
            raise UsageError("E101", f"tokens {list(chosen)}: {self._count} are held")
        bits: NDArray[Any] = self._bits[role][layer][:, np.array(chosen, np.intp)]
        return bits if self.dtype is DType.BF16 else bits.view(f"<f{self.dtype.size}")

    def clear(self) -> None:
        """Forget the tokens that are held; the chain stays."""
        self._count, self._positions = 0, None

    def write(self, target: str | Path, *, threads: int = 0, force: bool = False) -> CompressReport:
        """The tokens held as the next segment of the chain; then there are none."""
        if not self._count:
            raise UsageError("E101", "no token was pushed since the last segment")
        capture = open_capture(Memory(self._tensors(), self._metadata), "canonical")
        report = compress(
            capture,
            target,
            profiles=self._profiles,
            continues=self._chain,
            calibration=self._calibration,
            refer=self._refer,
            threads=threads,
            force=force,
        )
        self._chain.append(target)
        self.clear()
        return report

    def _tensors(self) -> dict[str, tuple[str, NDArray[Any]]]:
        tensors = {
            role.word: (
                str(self.dtype),
                np.ascontiguousarray(self._bits[role][None, :, :, : self._count]),
            )
            for role in Role
        }
        if self._positions is not None:
            tensors[POSITIONS] = ("I64", np.array(self._positions, "<i8"))
        return tensors

    def _checked(self, array: NDArray[Any]) -> NDArray[Any]:
        """(layers, kv_heads, n, head_dim) bits, of floats or of bits; UsageError for all else."""
        layers, heads, channels = self._shape
        rows = array[:, :, None] if array.ndim == len(self._shape) else array
        fits = rows.ndim == 4 and rows.shape[:2] + rows.shape[3:] == self._shape
        floats = "bfloat16" if self.dtype is DType.BF16 else f"float{8 * self.dtype.size}"
        known = (floats, np.dtype(self.dtype.bits).name)
        if not fits or rows.dtype.name not in known or rows.shape[2] == 0:
            expected = f"{self.dtype} ({layers}, {heads}, n, {channels})"
            raise UsageError("E101", f"{array.dtype.name} {array.shape}, {expected} is expected")
        return np.ascontiguousarray(rows).view(self.dtype.bits)

    def _told(self, positions: Sequence[int] | None, count: int) -> list[int] | None:
        """Positions of all tokens that will be held; None where nobody told any."""
        if positions is None and self._positions is None:
            return None
        more = range(self._count, self._count + count) if positions is None else list(positions)
        if len(more) != count or not all(0 <= each < MOST for each in more):
            raise UsageError("E101", f"{count} positions of 0 to {MOST - 1} are expected")
        return [*self.positions, *more]

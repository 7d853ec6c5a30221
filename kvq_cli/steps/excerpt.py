"""excerpt: layers and token ranges of a capture, written as a capture of their own.

Spec: formats/report.md, section "Samples".

    file      layers.N.key, layers.N.value      [B, H, T, D], N as it was
              query, positions                  of these layers; those that are still of use
    metadata  that of the capture, without what is no longer true
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture import Capture, Source, open_capture
from kvq_cli.capture.copying import copy_rows
from kvq_cli.capture.files import one_file
from kvq_cli.capture.header import Header
from kvq_cli.capture.queries import POSITIONS, TENSOR, Queries, find_queries
from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import Slab
from kvq_cli.capture.writer import new_header
from kvq_cli.record import record
from kvq_cli.steps.placed import filled

STALE: Final = ("layout", "tokens", "layers", "layer_indices")  # metadata

Ranges: TypeAlias = Sequence[tuple[int, int]]
NewTensor: TypeAlias = tuple[str, str, tuple[int, ...]]  # name, dtype, shape


@record(eq=False)
class Excerpt:
    """Token ranges of some layers, by their numbers."""

    capture: Capture
    ranges: Mapping[int, Ranges]

    @property
    def longest(self) -> int:
        """Tokens of the layer that keeps most."""
        return max(_count(each) for each in self.ranges.values())

    @property
    def cut(self) -> bool:
        """Whether a layer loses tokens."""
        return any(len(each) > 1 for each in self.ranges.values())

    @property
    def end(self) -> int:
        """The last tokens that every cut layer keeps, or else all that there are."""
        cut = [each[-1:] for each in self.ranges.values() if len(each) > 1]
        return min(map(_count, cut), default=self.longest)

    @property
    def whole(self) -> bool:
        return not self.cut and len(self.ranges) == len(self.capture.layers)


@record(eq=False)
class Looks:
    """Some queries of some layers."""

    queries: Queries
    places: Sequence[int]  # of the layers among those of the capture
    chosen: NDArray[np.int64]  # which queries
    positions: NDArray[np.int64] | None

    def tensors(self) -> list[NewTensor]:
        slabs, tensor = self.queries.slabs, self.queries.tensor
        heads, channels = slabs[0, 0].heads, slabs[0, 0].channels
        batch = 1 + max(entry for entry, _ in slabs)
        shape = (batch, len(self.places), heads, len(self.chosen), channels)
        found: list[NewTensor] = [(TENSOR, tensor.dtype, shape)]
        if self.positions is not None:
            found.append((POSITIONS, "I64", self.positions.shape))
        return found

    def copy(self, fd: int, header: Header) -> None:
        """Their rows and positions, into a file that has this header."""
        made = find_queries(Source(fd))
        assert made is not None
        with made.source:
            for (batch, place), slab in made.slabs.items():
                old = self.queries.slabs[batch, self.places[place]]
                _copy(self.queries.source, old, fd, slab, _runs(self.chosen))
        if self.positions is not None:
            start = next(each.start for each in header.tensors if each.name == POSITIONS)
            os.pwrite(fd, self.positions.astype("<i8").tobytes(), start)


@contextmanager
def write_excerpt(fd: int, excerpt: Excerpt, looks: Looks | None) -> Iterator[Capture]:
    """An open capture of the excerpt, in this file; with the capture's own queries."""
    capture = excerpt.capture
    metadata = {key: text for key, text in capture.files.metadata.items() if key not in STALE}
    tensors = [
        (
            f"layers.{layer.layer}.{role.word}",
            str(part[1]),
            (layer.batch, layer.heads, _count(excerpt.ranges[layer.layer]), part[0]),
        )
        for layer in capture.layers
        if layer.layer in excerpt.ranges
        for role, part in layer.roles.items()
    ]
    header = _begin(fd, [*tensors, *(looks.tensors() if looks else [])], metadata)
    if looks:
        looks.copy(fd, header)
    with open_capture(Source(fd, capture.source.path)) as found:
        for (role, batch, layer), slab in found.slabs.items():
            old = capture.slabs[role, batch, layer]
            _copy(capture.source, old, fd, slab, excerpt.ranges[layer])
        identity = {**capture.identity, **_layer_types(excerpt)}
        yield replace(
            found, depth=capture.depth, identity=identity, unquantisable=capture.unquantisable
        )


def write_looks(fd: int, looks: Looks) -> None:
    """A file of queries."""
    metadata = looks.queries.source.files.metadata
    kept = {key: text for key, text in metadata.items() if key not in STALE}
    looks.copy(fd, _begin(fd, looks.tensors(), kept))


def _begin(fd: int, tensors: Sequence[NewTensor], metadata: Mapping[str, str]) -> Header:
    """A file of these tensors, as a hole."""
    header = new_header(tensors, metadata)
    filled(one_file(header), [fd])
    return header


def _copy(source: Source, old: Slab, fd: int, new: Slab, ranges: Ranges) -> None:
    """Ranges of rows, one behind the other."""
    at = 0
    for start, stop in ranges:
        copy_rows(source, old, (start, stop), Sink([fd]), new, at)
        at += stop - start


def _layer_types(excerpt: Excerpt) -> dict[str, Any]:
    """The words of the layers that are left, which go by place."""
    try:
        words = json.loads(excerpt.capture.identity.get("layer_types", ""))
    except (ValueError, RecursionError):
        return {}
    layers = excerpt.capture.layers
    if not isinstance(words, list) or len(words) != len(layers):
        return {}
    left = [word for word, each in zip(words, layers, strict=True) if each.layer in excerpt.ranges]
    return {"layer_types": json.dumps(left)}


def _count(ranges: Ranges) -> int:
    return sum(stop - start for start, stop in ranges)


def _runs(numbers: NDArray[np.int64]) -> Ranges:
    """Ascending numbers as ranges."""
    groups = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [(int(each[0]), int(each[-1]) + 1) for each in groups]

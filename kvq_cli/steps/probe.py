"""probe: whose queries look at the keys of a capture, and where from.

Spec: formats/report.md, section "Attention".

    capture    the queries that the capture itself holds
    file       those of another file
    self       the last keys of each head, taken for queries: where there are no others

A layer that holds fewer tokens than the longest holds the last ones.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from kvq_cli import jsontext
from kvq_cli.capture import Capture, Source
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.queries import Queries, find_queries, scale_of
from kvq_cli.capture.slab import Slab, read_rows
from kvq_cli.digest import PREFIX
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.quality import Rope, widened
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.record import record
from kvq_cli.words import Role

SELF: Final = "self"
LAST: Final = 64  # keys of a head that stand in for queries
PIECE: Final = 1 << 20


@record(eq=False)
class Probe:
    """The queries of a capture's layers, ready to be multiplied with keys."""

    capture: Capture
    queries: Queries | None  # None: the capture's own last keys
    kind: str
    digest: str | None = None  # of the queries; None where the capture's keys stand in

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "digest": self.digest}

    def look(self, batch: int, layer: LayerShape) -> tuple[Floats, NDArray[np.int64]]:
        """Queries (H, G, n, D) times the scale, and how many of the layer's tokens each sees."""
        if self.queries is None:
            return self._own(batch, layer)
        queries, place = self.queries, self.capture.layers.index(layer)
        slab = queries.slabs[batch, place]
        rows = read_wide(queries.source, slab, 0, slab.tokens)
        first = self.first(layer)
        sees = np.full(slab.tokens, layer.tokens)
        if queries.positions is not None:
            positions = np.array(queries.positions)
            sees = np.minimum(positions + 1 - first, layer.tokens)
            rope = self.rope(layer)
            if rope is not None and not queries.rotated:
                rows = rope.rotate(rows, positions)
        rows = rows[:, sees > 0] * self._scale(slab.channels)
        shape = (layer.heads, slab.heads // layer.heads, *rows.shape[1:])
        return rows.reshape(shape), sees[sees > 0]

    def rope(self, layer: LayerShape) -> Rope | None:
        """How the layer's keys are yet to be turned."""
        identity = self.capture.identity
        if identity.get("rope_state") not in ("pre", "pre_rope"):
            return None
        theta = _theta(identity, self.capture.layers.index(layer))
        style = identity.get("rope_style", "half-rotated")
        if theta is None or "rope_scaling" in identity or style not in STYLES:
            raise UsageError(
                "E101",
                "keys are without rotary positions; their attention needs a rope_theta, "
                f"rope_style {' or '.join(STYLES)} and no rope_scaling: see --meta",
            )
        return Rope(theta, STYLES[style])

    def first(self, layer: LayerShape) -> int:
        """The position of the layer's first token."""
        return max(each.tokens for each in self.capture.layers) - layer.tokens

    def _own(self, batch: int, layer: LayerShape) -> tuple[Floats, NDArray[np.int64]]:
        slab = self.capture.slabs[Role.KEY, batch, layer.layer]
        start = max(0, slab.tokens - LAST)
        rows = read_wide(self.capture.source, slab, start, slab.tokens)
        sees = np.arange(start, slab.tokens)
        rope = self.rope(layer)
        if rope is not None:
            rows = rope.rotate(rows, sees + self.first(layer))
        return rows[:, None] * self._scale(slab.channels), sees + 1

    def _scale(self, channels: int) -> float:
        told = self.queries.scale if self.queries else None
        return told or scale_of(self.capture.identity) or 1 / math.sqrt(channels)


QuerySource: TypeAlias = str | Path | int | None  # a file, by name or open, or SELF
STYLES: Final = {"half-rotated": False, "interleaved": True}


@contextmanager
def probe_of(
    capture: Capture, queries: QuerySource, holder: Source | None = None
) -> Iterator[Probe | None]:
    """The named queries, `self`, or else those of the capture, or of its `holder`; else None."""
    with ExitStack() as stack:
        if queries is None:
            found = find_queries(holder or capture.source)
            kind = "capture"
        elif str(queries) == SELF:
            found, kind = None, SELF
        else:
            source = stack.enter_context(Source(queries))
            found, kind = find_queries(source), "file"
            if found is None:
                raise CaptureError("E208", f'{queries} has no tensor "query"')
        if found is None and kind != SELF:
            yield None
            return
        probe = Probe(capture, found, kind)
        _check(probe)
        # Queries for another capture may be of any size, and are not read.
        yield replace(probe, digest=_digest(found)) if found else probe


def read_bits(source: Source, slab: Slab, start: int, stop: int) -> NDArray[Any]:
    """Rows of all heads."""
    bits = np.empty((slab.heads, stop - start, slab.channels), slab.dtype.bits)
    read_rows(source, slab, range(slab.heads), start, stop, bits)
    return bits


def read_wide(source: Source, slab: Slab, start: int, stop: int) -> Floats:
    """Rows of all heads as float64, what is not finite as 0."""
    return widened(read_bits(source, slab, start, stop), slab.dtype)


def _check(probe: Probe) -> None:
    """UsageError where keys cannot be turned, E208 where the queries are for another capture."""
    for layer in probe.capture.layers:
        probe.rope(layer)
    if probe.queries is not None:
        check_queries(probe.capture, probe.queries)


def check_queries(capture: Capture, queries: Queries) -> None:
    """CaptureError E208 where the queries are for another capture."""
    layers = capture.layers
    if queries.layers != len(layers):
        found = f"queries of {queries.layers} layers, the capture has {len(layers)}"
        raise CaptureError("E208", found)
    for place, layer in enumerate(layers):
        for batch in range(layer.batch):
            slab, keys = queries.slabs.get((batch, place)), layer.key
            if slab is None or keys is None:
                raise CaptureError(
                    "E208", f"layer {layer.layer}, batch {batch}: no queries or keys"
                )
            if slab.heads % layer.heads or slab.channels != keys[0]:
                raise CaptureError(
                    "E208",
                    f"queries of {slab.heads} heads and {slab.channels} channels, layer "
                    f"{layer.layer} has {layer.heads} kv heads and {keys[0]} channels",
                )


def _theta(identity: Mapping[str, str], place: int) -> float | None:
    """The base of the layer's frequencies: one number, or one for each type of layer."""
    text = identity.get("rope_theta", "")
    try:
        told = json.loads(text)
        if isinstance(told, dict):
            told = told.get(json.loads(identity.get("layer_types", "[]"))[place])
        return float(told) if 1 < float(told) < math.inf else None
    except (ValueError, TypeError, IndexError, OverflowError, RecursionError):
        return None


def _digest(queries: Queries) -> str:
    tensor = queries.tensor
    told = {
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "positions": queries.positions and list(queries.positions),
        "scale": queries.scale,
        "rotated": queries.rotated,
    }
    hasher = blake3(b"kvq_queries_v1\0" + jsontext.canonical(told).encode())
    piece = bytearray(PIECE)
    for at in range(tensor.start, tensor.stop, PIECE):
        view = memoryview(piece)[: min(PIECE, tensor.stop - at)]
        queries.source.read_into(at, view)
        hasher.update(view)
    return PREFIX + hasher.hexdigest()

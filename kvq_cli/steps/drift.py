"""drift: what a container does to the attention of its capture, layer by layer.

Spec: formats/report.md, section "Attention".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

import numpy as np

from kvq_cli.capture import Capture
from kvq_cli.capture.layout import LayerShape
from kvq_cli.container.reader import Reader
from kvq_cli.errors import KvqError, UsageError
from kvq_cli.quality import METRICS, Attention, Drift, Side, Sides, widened
from kvq_cli.quality.arithmetic import Floats
from kvq_cli.quality.attention import VALUE_METRICS
from kvq_cli.quality.distortion import rounded
from kvq_cli.steps.opened import Container
from kvq_cli.steps.probe import Probe, QuerySource, probe_of, read_wide
from kvq_cli.steps.reports import StatsReport
from kvq_cli.steps.trial import FEW, few
from kvq_cli.steps.work import Progress, in_order, workers
from kvq_cli.words import Role

SEGMENT: Final = "attention was not measured: it looks at what the segment continues, too"
Place = tuple[int, LayerShape]  # batch entry and layer


class LayerReader:
    """Keys and values of one layer, before and after, keys with their rotary positions."""

    def __init__(self, probe: Probe, container: Container, place: Place) -> None:
        self._probe, self._container = probe, container
        self._batch, self._layer = place
        self._rope = probe.rope(self._layer)

    def cuts(self) -> list[tuple[int, int]]:
        """Token ranges: all in one, or those of the pages of keys where these are not too large."""
        layer = self._layer
        if few(layer):
            return [(0, layer.tokens)]
        pages = self._container.page_places(Role.KEY, layer.layer, self._batch)
        channels = max(shape[0] for shape in (layer.key, layer.value) if shape)
        most = max(1, FEW // (layer.heads * channels))
        edges = sorted({*(start for start, _, _ in pages), *range(0, layer.tokens, most)})
        return list(zip(edges, [*edges[1:], layer.tokens], strict=True))

    def read(self, role: Role, start: int, stop: int) -> Sides:
        """Rows of a token range, (H, T, D), as float64; what was not finite is 0 in both."""
        slab = self._probe.capture.slabs[role, self._batch, self._layer.layer]

        def before() -> Floats:
            return self._turned(
                role, read_wide(self._probe.capture.source, slab, start, stop), start
            )

        def after() -> Floats:
            bits = self._container.rows(
                role, self._layer.layer, batch=self._batch, tokens=range(start, stop), dtype=None
            )
            return self._turned(role, widened(bits, slab.dtype), start)

        return Side("before", before), Side("after", after)

    def _turned(self, role: Role, rows: Floats, start: int) -> Floats:
        if role is not Role.KEY or self._rope is None:
            return rows
        positions = np.arange(start, start + rows.shape[1]) + self._probe.first(self._layer)
        return self._rope.rotate(rows, positions)


def with_attention(
    report: StatsReport,
    capture: Capture | None,
    reader: Reader,
    queries: QuerySource,
    threads: int,
    progress: Progress,
) -> StatsReport:
    """The report, with what became of attention if there is somebody to ask."""
    if queries is not None and (capture is None or not reader.source.seekable):
        raise UsageError("E101", "--queries needs the capture, and a container that is a file")
    if capture is None or not reader.source.seekable:
        return report
    with ExitStack() as stack:
        opened = Container(reader.source, reader.given)
        if opened.manifest.continues is not None:
            return replace(report, notes=(*report.notes, SEGMENT))
        try:
            probe = stack.enter_context(probe_of(capture, queries))
        except KvqError as error:
            if queries is not None:
                raise
            # Nobody asked for them.
            note = f"attention was not measured: {error}"
            return replace(report, notes=(*report.notes, note))
        if probe is None:
            return report
        pool = stack.enter_context(workers(threads))
        rows = attention_rows(probe, opened, pool, progress)
        return replace(report, probe=probe.to_json(), attention=rows)


def attention_rows(
    probe: Probe, container: Container, pool: Executor | None, progress: Progress
) -> list[dict[str, Any]]:
    """A row for each query head, each layer, and the whole: the finest first."""
    layers = [layer for layer in probe.capture.layers if layer.key is not None]
    places = [(batch, layer) for layer in layers for batch in range(layer.batch)]

    def drift(place: Place) -> tuple[int, Drift]:
        batch, layer = place
        reader = LayerReader(probe, container, place)
        queries, sees = probe.look(batch, layer)
        wanted = [name for name in METRICS if layer.value or name not in VALUE_METRICS]
        return len(sees), Attention(queries, sees, wanted).drift(reader.cuts(), reader.read)

    found: dict[int, list[tuple[int, Drift]]] = {}
    done, total = 0, sum(_elements(layer) for _, layer in places)
    for (_, layer), drifted in zip(places, in_order(pool, drift, places), strict=True):
        if drifted[0]:  # somebody sees the layer
            found.setdefault(layer.layer, []).append(drifted)
        done += _elements(layer)
        progress(done, total)
    return list(_rows(found))


def _elements(layer: LayerShape) -> int:
    """Of a batch entry: what progress is told in."""
    shapes = [shape for shape in (layer.key, layer.value) if shape]
    return layer.heads * layer.tokens * sum(channels for channels, _ in shapes)


def _rows(found: Mapping[int, list[tuple[int, Drift]]]) -> Iterator[dict[str, Any]]:
    layers = []
    for layer, entries in found.items():
        count = sum(queries for queries, _ in entries)
        names = entries[0][1]
        heads = {
            name: np.mean([drift[name].reshape(-1) for _, drift in entries], axis=0)
            for name in names
        }
        size = len(next(iter(heads.values())))
        for head in range(size):
            yield _row(layer, head, count, {name: heads[name][head] for name in names})
        layers.append((layer, count, {name: float(heads[name].mean()) for name in names}))
    yield from (_row(layer, None, count, means) for layer, count, means in layers)
    if layers:
        means = {name: _mean(each[2].get(name) for each in layers) for name in METRICS}
        yield _row(None, None, sum(count for _, count, _ in layers), means)


def _row(
    layer: int | None, head: int | None, queries: int, means: Mapping[str, float | None]
) -> dict[str, Any]:
    told = {name: means.get(name) for name in METRICS}
    return {"layer": layer, "head": head, "queries": queries} | {
        name: None if mean is None else rounded(mean) for name, mean in told.items()
    }


def _mean(numbers: Iterable[float | None]) -> float | None:
    known = [number for number in numbers if number is not None]
    return float(np.mean(known)) if known else None

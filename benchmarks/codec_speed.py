"""codec_speed: every codec, head_dim and dtype; one thread and two; next to a cast and a copy.

Each call gets what kvq gives to a codec, 1 MiB of neighbouring pages, and writes to arrays that
are used again, as kvq does. Jobs are fresh: 64 MiB of them in turn. `hot` is one job over and
over. Data are keys that tools/make_capture.py grows from the sample capture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks import blocks, rounds
from benchmarks.pages import spec_of
from kvq_cli.codecs import Codec, page_of
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Planes, packed_sizes

CHANNELS: Final = (64, 128, 256)
WAYS: Final = ("encode", "decode")


class Calls:
    """A codec's two calls on pages of one kind, with scratch for each thread."""

    def __init__(self, codec: Codec, spec: PageSpec) -> None:
        self._codec, self._spec = codec, spec
        self._local = threading.local()

    @property
    def bits(self) -> float:
        """Bits of an element, scales and all."""
        return 8 * sum(packed_sizes(self._codec.layout(self._spec))) / self._spec.elements

    def encode(self, page: Page) -> Planes:
        return self._codec.encode(page, self._scratch())

    def decode(self, planes: Planes) -> None:
        scratch = self._scratch()
        self._codec.decode(planes, self._spec, self._local.into, scratch)

    def _scratch(self) -> Scratch:
        if not hasattr(self._local, "scratch"):
            self._local.scratch, self._local.into = self._fresh(), page_of(self._spec)
        scratch: Scratch = self._local.scratch
        return scratch

    def _fresh(self) -> Scratch:
        return Scratch()


def kept(planes: Planes) -> dict[str, NDArray[Any]]:
    """Planes that outlive the next call."""
    return {name: np.array(plane) for name, plane in planes.items()}


def pages(halves: blocks.Blocks, dtype: DType) -> list[Page]:
    """Jobs of one dtype; elements are cut, not rounded, to BF16."""
    bits: NDArray[Any] = halves.view(np.uint16)
    if dtype is not DType.F16:
        words = halves.astype(np.float32).view(np.uint32)
        bits = words if dtype is DType.F32 else (words >> 16).astype(np.uint16)
    found = rounds.jobs(bits)
    return [Page(spec_of(job, dtype), job) for job in found]


def measure(
    codecs: Mapping[str, Codec], count: int, channels: tuple[int, ...] = CHANNELS
) -> Iterator[dict[str, Any]]:
    """Rows; see the docstring of result.py."""
    for width in channels:
        with blocks.grown(width) as path:
            halves = blocks.read(path).roles["key"]
        for dtype in DType:
            share = len(halves) * 2 // dtype.size
            yield from _of_kind(codecs, halves[:share], dtype, count)


def _of_kind(
    codecs: Mapping[str, Codec], halves: blocks.Blocks, dtype: DType, count: int
) -> Iterator[dict[str, Any]]:
    source = pages(halves, dtype)
    calls = {name: Calls(codec, source[0].spec) for name, codec in codecs.items()}
    elements = len(source) * source[0].spec.elements
    floats = rounds.jobs(halves, source[0].spec.elements * 2)
    with ThreadPoolExecutor(rounds.THREADS) as pool:
        for threads, executor in ((1, None), (rounds.THREADS, pool)):
            spent = spent_in_rounds(calls, source, floats, executor, count)
            for name, call in calls.items():
                row = {"codec": name, "channels": source[0].spec.channels, "dtype": dtype.value}
                facts = {"threads": threads, "bits": round(call.bits, 4)}
                yield {**row, **facts, **figures(spent[name], elements, dtype)}


def spent_in_rounds(
    calls: Mapping[str, Calls],
    source: list[Page],
    floats: list[blocks.Blocks],
    pool: ThreadPoolExecutor | None,
    count: int,
) -> dict[str, dict[str, list[float]]]:
    """Seconds by codec and call, each round one number; the first round only warms up."""
    local = threading.local()

    def copy(page: Page) -> None:
        if not hasattr(local, "into"):
            local.into = np.empty_like(page.bits)
        np.copyto(local.into, page.bits)

    spent: dict[str, dict[str, list[float]]] = {name: {} for name in calls}
    for turn in range(count + 1):
        for name, call in calls.items():
            planes = [kept(call.encode(page)) for page in source]
            now: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
                "cast": (rounds.cast, floats),
                "copy": (copy, source),
                "encode": (call.encode, source),
                "decode": (call.decode, planes),
            }
            if pool is None:
                now["hot_cast"] = (rounds.cast, floats[:1] * 8)
                now["hot_encode"] = (call.encode, source[:1] * 8)
                now["hot_decode"] = (call.decode, planes[:1] * 8)
            for what, (each, over) in now.items():
                seconds = rounds.timed(each, over, pool)
                if turn:
                    spent[name].setdefault(what, []).append(seconds)
    return spent


def figures(spent: dict[str, list[float]], elements: int, dtype: DType) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for way in WAYS:
        row[f"{way}_ns"] = rounds.nanoseconds(spent[way], elements)
        row[f"{way}_least_ns"] = round(min(spent[way]) / elements * 1e9, 4)
        row[f"{way}_mb_s"] = rounds.megabytes(spent[way], elements * dtype.size)
        row[f"{way}_per_cast"] = round(rounds.ratio(spent[way], spent["cast"]), 3)
        row[f"{way}_per_copy"] = round(rounds.ratio(spent[way], spent["copy"]), 2)
        if "hot_cast" in spent:
            hot = rounds.ratio(spent[f"hot_{way}"], spent["hot_cast"])
            row[f"{way}_hot_per_cast"] = round(hot, 3)
    row["cast_ns"] = rounds.nanoseconds(spent["cast"], elements)
    row["copy_ns"] = round(median(spent["copy"]) / elements * 1e9, 4)
    return row

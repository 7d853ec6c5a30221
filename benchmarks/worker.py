"""worker: runs the methods of one package in a process of its own, told what by lines of JSON.

    python -m benchmarks.worker MODULE FOLDER HEADS

FOLDER holds key.npy and value.npy, the blocks as they are, and key.fresh.npy and
value.fresh.npy, repeated. A line in, a line out:

    {}                                      {"versions": {…}, "methods": [{"name": …, …}, …]}
    {"facts": NAME, "role": R}              bits, held_bits, relative_mse
    {"choose": NAME, "threads": 1 or 2}     the size of job and kind of threads that suit it best
    {"time": NAME, "role": R, "threads": …} seconds an element: cast, encode, decode

A method that raises gives {"error": …}. Jobs are of 1 or 8 MiB; two threads are two Python
threads with every other job, or the package's own with one job at a time: the faster counts, for
encode and for decode.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import machine, rounds
from benchmarks.methods import Method

SIZES: Final = (rounds.JOB, 8 * rounds.JOB)
BUDGET: Final = 0.25  # seconds for one timing of a method
TRIAL: Final = 1 << 24  # bytes to choose by


@dataclass(frozen=True, slots=True)
class Way:
    """How one call of a method is run."""

    size: int  # bytes of a job
    own: bool  # threads of the package, not of Python

    @property
    def word(self) -> str:
        return f"{self.size >> 20} MiB{', its own threads' if self.own else ''}"


class Worker:
    """Blocks, methods, and how each is run best."""

    def __init__(self, module: str, folder: Path, heads: int) -> None:
        self._module = importlib.import_module(f"benchmarks.methods.{module}")
        self._methods: dict[str, Method] = {m.name: m for m in self._module.methods(heads)}
        self._own: Callable[[int], None] | None = getattr(self._module, "set_threads", None)
        self._folder = folder
        self._pool = ThreadPoolExecutor(rounds.THREADS)
        self._ways: dict[tuple[str, str, int], Way] = {}
        self._inputs: dict[tuple[str, str, str, int], list[Any]] = {}
        self._data = {role: np.load(folder / f"{role}.fresh.npy") for role in ("key", "value")}

    def answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        for what in ("facts", "choose", "time"):
            if what in asked:
                call = getattr(self, f"_{what}")
                rest = {name: value for name, value in asked.items() if name != what}
                found: dict[str, Any] = call(self._methods[asked[what]], **rest)
                return found
        versions = {name: importlib.metadata.version(name) for name in self._module.PACKAGES}
        told = [
            {"name": each.name, "baseline": each.baseline, "note": each.note}
            for each in self._methods.values()
        ]
        return {"versions": versions, "methods": told}

    def _facts(self, method: Method, role: str) -> dict[str, Any]:
        source = np.load(self._folder / f"{role}.npy", mmap_mode="c")
        stored, held, wrong, square, elements = 0, 0, 0.0, 0.0, 0
        for block in rounds.jobs(source, rounds.JOB):
            encoded = method.encode(block)
            stored += method.stored(encoded)
            held += (method.held or method.stored)(encoded)
            restored = np.asarray(method.decode(encoded)).astype(np.float64).reshape(block.shape)
            exact = block.astype(np.float64)
            wrong += float(np.square(restored - exact).sum())
            square += float(np.square(exact).sum())
            elements += block.size
        return {
            "bits": round(8 * stored / elements, 4),
            "held_bits": round(8 * held / elements, 4),
            "relative_mse": float(f"{wrong / square:.4g}"),
        }

    def _choose(self, method: Method, threads: int) -> dict[str, Any]:
        kinds = (False, True) if threads > 1 and self._own else (False,)
        ways = [Way(size, own) for size in SIZES for own in kinds]
        for kind in ("encode", "decode"):
            tried = {way: self._try(method, kind, threads, way) for way in ways}
            self._ways[method.name, kind, threads] = min(tried, key=lambda way: tried[way])
        return {f"{kind}_jobs": self._ways[method.name, kind, threads].word
                for kind in ("encode", "decode")}  # fmt: skip

    def _try(self, method: Method, kind: str, threads: int, way: Way) -> float:
        """Seconds an element, over so few jobs that choosing takes little."""
        source = rounds.jobs(self._data["key"], way.size)
        blocks = source[: max(threads, TRIAL // way.size)]
        if kind == "decode":
            blocks = [method.keep(method.encode(block)) for block in blocks]
        call = getattr(method, kind)
        once = self._run(call, blocks[:threads], threads, way) / threads
        if once * len(blocks) > BUDGET:
            return once / source[0].size
        return min(self._run(call, blocks, threads, way) for _ in range(2)) / (
            len(blocks) * source[0].size
        )

    def _time(self, method: Method, role: str, threads: int) -> dict[str, float]:
        source = rounds.jobs(self._data[role], rounds.JOB)
        pool = self._pool if threads > 1 else None
        spent = rounds.timed(rounds.cast, source, pool)
        found = {"cast": spent / (len(source) * source[0].size)}
        for kind in ("encode", "decode"):
            way = self._ways[method.name, kind, threads]
            blocks = self._blocks(method, kind, role, way.size)
            spent = self._run(getattr(method, kind), blocks, threads, way)
            found[kind] = spent / (len(blocks) * self._size(way.size))
        return found

    def _blocks(self, method: Method, kind: str, role: str, size: int) -> list[Any]:
        """What a call is timed on: all jobs, or as many as the budget allows; two at least."""
        key = (method.name, kind, role, size)
        if key not in self._inputs:
            source = rounds.jobs(self._data[role], size)
            call = getattr(method, kind)
            first = source[0] if kind == "encode" else method.keep(method.encode(source[0]))
            once = min(rounds.timed(call, [first], None) for _ in range(2))
            source = source[: max(rounds.THREADS, int(BUDGET / once))]
            if kind == "decode":
                source = [method.keep(method.encode(block)) for block in source]
            self._inputs[key] = source
        return self._inputs[key]

    def _size(self, size: int) -> int:
        """Elements of a job."""
        return int(rounds.jobs(self._data["key"], size)[0].size)

    def _run(self, call: Any, blocks: list[Any], threads: int, way: Way) -> float:
        pool: Executor | None = self._pool if threads > 1 and not way.own else None
        self._set(threads if way.own else 1)
        return rounds.timed(call, blocks, pool)

    def _set(self, threads: int) -> None:
        if self._own:
            self._own(threads)


def main() -> None:
    machine.settle()
    # What packages print belongs elsewhere: only answers go to the orchestrator.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        worker = Worker(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    except Exception as error:  # noqa: BLE001 - whatever keeps a package from loading is told
        print(json.dumps({"error": _told(error)}), file=answers, flush=True)
        return
    gc.disable()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except Exception as error:  # noqa: BLE001 - a peer that fails is a row, not the end
            answer = {"error": _told(error)}
        gc.collect()
        print(json.dumps(answer), file=answers, flush=True)


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


if __name__ == "__main__":
    main()

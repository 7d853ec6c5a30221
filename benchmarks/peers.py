"""peers: kvq's codecs next to other packages, on the same keys and values in the same run.

Each package runs in a process of its own (worker.py), one process after the other. A is measured
in every process just before a method, on the same blocks, so ratios to A compare across processes.
Sizes are of what a decoder needs, scales and zero points included; held_bits is what the package
keeps in memory. Errors are those of what it gives back, in float64.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import blocks, rounds, verdict
from benchmarks.methods import MODULES

PEERS_PYTHON: Final = blocks.ROOT / ".venv-peers" / "bin" / "python"
HALF: Final = 2  # bytes of an element


class Process:
    """A worker, and what it is asked."""

    def __init__(self, module: str, python: Path | str, folder: Path, heads: int) -> None:
        self.module = module
        words = [str(python), "-W", "ignore", "-m", "benchmarks.worker", module]
        self._child = subprocess.Popen(
            [*words, str(folder), str(heads)],
            cwd=blocks.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def ask(self, **asked: Any) -> dict[str, Any]:
        """The answer, or why there is none under "error"."""
        into, out = self._child.stdin, self._child.stdout
        assert into is not None
        assert out is not None
        try:
            into.write(json.dumps(asked) + "\n")
            into.flush()
            line = out.readline()
        except BrokenPipeError:
            line = ""
        answer: dict[str, Any] = json.loads(line) if line else {"error": "the process ended"}
        return answer

    def close(self) -> None:
        if self._child.stdin is not None:
            with suppress(BrokenPipeError):  # it ended by itself, and left what it was asked
                self._child.stdin.close()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def measure(capture: blocks.Capture, count: int, chosen: list[str]) -> dict[str, Any]:
    """One capture: rows, versions, what failed and where a peer wins; see result.py."""
    versions: dict[str, str] = {}
    failed: dict[str, str] = {}
    rows: list[dict[str, Any]] = []
    for worker in _workers(capture, chosen, failed):
        told = worker.ask()
        if "error" in told:
            failed[worker.module] = told["error"]
            continue
        versions |= told["versions"]
        found = list(_prepared(worker, told["methods"], failed))
        _rounds(found, count, failed)
        rows += map(_summarised, found)
    rows = [row for row in rows if "encode_mb_s" in row]
    return {
        "capture": capture.name,
        "digest": capture.digest,
        "dtype": capture.dtype,
        "blocks": list(capture.roles["key"].shape),
        "versions": versions,
        "rows": rows,
        "failed": [{"name": name, "why": why} for name, why in failed.items()],
        "violations": verdict.violations(rows),
    }


def _workers(
    capture: blocks.Capture, chosen: list[str], failed: dict[str, str]
) -> Iterator[Process]:
    """One after the other: together they would not fit into memory."""
    with tempfile.TemporaryDirectory(prefix="kvq-bench-") as name:
        folder = Path(name)
        for role, each in capture.roles.items():
            np.save(folder / f"{role}.npy", each)
            np.save(folder / f"{role}.fresh.npy", blocks.repeated(each))
        for module, ours in MODULES.items():
            if chosen and module not in chosen:
                continue
            python: Path | str = sys.executable if ours else PEERS_PYTHON
            if not Path(python).exists():
                failed[module] = "no .venv-peers: make bench-peers"
                continue
            worker = Process(module, python, folder, capture.heads)
            try:
                yield worker
            finally:
                worker.close()


def _prepared(
    worker: Process, methods: list[dict[str, Any]], failed: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """A row for each method, role and number of threads, with its sizes and errors."""
    for method in methods:
        name = method["name"]
        kind = "kvq" if worker.module == "kvq_codecs" else "peer"
        about = {"name": name, "kind": "bound" if method["baseline"] else kind}
        facts = {role: worker.ask(facts=name, role=role) for role in blocks.ROLES}
        for threads in (1, rounds.THREADS):
            chosen = worker.ask(choose=name, threads=threads)
            for role in blocks.ROLES:
                found = facts[role] | chosen
                if "error" in found:
                    failed[name] = found["error"]
                    continue
                row = {**about, "role": role, "threads": threads, **found, "note": method["note"]}
                yield {**row, "worker": worker, "spent": []}


def _rounds(rows: list[dict[str, Any]], count: int, failed: dict[str, str]) -> None:
    for _ in range(count):
        for row in rows:
            asked = {"time": row["name"], "role": row["role"], "threads": row["threads"]}
            spent = row["worker"].ask(**asked)
            if "error" in spent:
                failed[row["name"]] = spent["error"]
            else:
                row["spent"].append(spent)


def _summarised(row: dict[str, Any]) -> dict[str, Any]:
    """Medians in place of what rounds gave."""
    del row["worker"]
    spent = row.pop("spent")
    if not spent:
        return row
    casts = [each["cast"] for each in spent]
    row["cast_ns"] = rounds.nanoseconds(casts, 1)
    for way in verdict.WAYS:
        times = [each[way] for each in spent]
        row[f"{way}_mb_s"] = rounds.megabytes(times, HALF)
        row[f"{way}_least_ns"] = round(min(times) * 1e9, 4)
        row[f"{way}_per_cast"] = round(rounds.ratio(times, casts), 3)
    return row

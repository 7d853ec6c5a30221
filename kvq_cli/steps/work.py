"""work: pages in parallel, results in order, memory bounded.

Bytes never depend on the number of threads: every job is a pure function of its page, and
results are taken in the order in which jobs were given.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeAlias, TypeVar

from kvq_cli.container.entropy import Coder, Decoder
from kvq_cli.errors import UsageError
from kvq_cli.numerics.scratch import Scratch

# Jobs under way: enough to keep every thread busy, few enough to bound memory.
AHEAD: Final = 2 + 2 * (os.cpu_count() or 1)

Progress: TypeAlias = Callable[[int, int], None]  # bytes done; bytes in all, 0 if not known
Job = TypeVar("Job")
Result = TypeVar("Result")


class Bench(threading.local):
    """What one thread works with: scratch arrays and zstd contexts."""

    def __init__(self, level: int | None = None) -> None:
        self.scratch = Scratch()
        self.coder = Coder(level) if level else None
        self.decoder = Decoder()


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def thread_count(asked: int) -> int:
    """0 means every processor this process may use."""
    if asked < 0:
        raise UsageError("E101", f"threads: {asked}, 0 or more are allowed")
    return asked or len(os.sched_getaffinity(0))


@contextmanager
def thread_pool(threads: int) -> Iterator[Executor]:
    """A pool whose waiting jobs are dropped when the story ends early."""
    pool = ThreadPoolExecutor(thread_count(threads), thread_name_prefix="kvq")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def in_batches(jobs: Iterable[Job], size: Callable[[Job], int], limit: int) -> Iterator[list[Job]]:
    """Neighbouring jobs together, up to the one with which their sizes reach `limit`."""
    batch: list[Job] = []
    total = 0
    for job in jobs:
        batch.append(job)
        total += size(job)
        if total >= limit:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch


def in_order(
    pool: Executor, function: Callable[[Job], Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """function(job) for each job, in order; at most AHEAD jobs are under way."""
    waiting: deque[Future[Result]] = deque()
    for job in jobs:
        waiting.append(pool.submit(function, job))
        if len(waiting) >= AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()

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
from typing import Final, Generic, TypeAlias, TypeVar

from kvq_cli.container.entropy import Coder, Decoder
from kvq_cli.errors import UsageError
from kvq_cli.numerics.scratch import NO_TABLES, Scratch, Tables
from kvq_cli.steps.forks import Forks, may_fork

# Jobs under way: enough to keep every thread busy, few enough to bound memory.
AHEAD: Final = 2 + 2 * (os.cpu_count() or 1)
ROOM: Final = 1 << 23  # bytes of a result that a worker process can give back

Progress: TypeAlias = Callable[[int, int], None]  # bytes done; bytes in all, 0 if not known
Job = TypeVar("Job")
Result = TypeVar("Result")


class Bench(threading.local):
    """What one thread works with: scratch arrays, the codecs' tables and zstd contexts."""

    def __init__(self, level: int | None = None, tables: Tables = NO_TABLES) -> None:
        self.scratch = Scratch(tables)
        self.coder = Coder(level) if level else None
        self.decoder = Decoder()
        self.whole: object = None  # names the page that scratch holds decoded


def silent(done: int, total: int) -> None:
    """Progress that nobody watches."""


def thread_count(asked: int) -> int:
    """0 means every processor this process may use."""
    if asked < 0:
        raise UsageError("E101", f"threads: {asked}, 0 or more are allowed")
    return asked or len(os.sched_getaffinity(0))


@contextmanager
def workers(threads: int, room: int = ROOM, *, messages: bool = True) -> Iterator[Executor | None]:
    """Processes or threads besides the caller's thread; the jobs that wait go with the story.

    Processes where they can be forked and jobs are small `messages`: threads hand Python's
    lock to and fro.
    """
    others = thread_count(threads) - 1
    if others == 0:
        yield None
        return
    pool: Executor
    if messages and may_fork():
        pool = Forks(others, room)
    else:
        pool = ThreadPoolExecutor(others, thread_name_prefix="kvq")
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
    pool: Executor | None, function: Callable[[Job], Result], jobs: Iterable[Job]
) -> Iterator[Result]:
    """function(job) for each job, in order; at most AHEAD jobs are under way.

    The caller is one of the threads: while the next result is not there it does what nobody
    has begun, and without a pool everything. Jobs are drawn alike in both cases, so that a
    failure to draw one is told at the same point whatever the number of threads.
    """
    waiting: deque[_Task[Job, Result]] = deque()
    for job in jobs:
        future = pool.submit(function, job) if pool else Future[Result]()
        waiting.append(_Task(function, job, future))
        if len(waiting) >= AHEAD:
            yield _next(waiting)
    while waiting:
        yield _next(waiting)


class _Task(Generic[Job, Result]):
    """A job that waits for a thread of the pool, or for the caller."""

    def __init__(self, function: Callable[[Job], Result], job: Job, future: Future[Result]) -> None:
        self._function = function
        self._job = job
        self.future = future

    def take_on(self) -> bool:
        """Do the job here; False if somebody has begun it."""
        if not self.future.cancel():
            return False
        self.future = Future()
        try:
            self.future.set_result(self._function(self._job))
        except Exception as error:  # noqa: BLE001 - raised when it is this job's turn
            self.future.set_exception(error)
        return True


def _next(waiting: deque[_Task[Job, Result]]) -> Result:
    while not waiting[0].future.done() and any(task.take_on() for task in waiting):
        pass
    return waiting.popleft().future.result()

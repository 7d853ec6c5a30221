"""forks: worker processes for the loop over pages.

Threads share Python's lock, and pages give it away and take it back so often that a second
thread gains little. A process that has one thread is forked instead: a worker inherits the
story's function with all it refers to, gets jobs through a pipe, and puts results into memory
that it shares with the story.

    jobs       pickled, one behind the other
    results    their length in a pipe, pickled in slots that take turns; 0 where there is none

Nothing that goes wrong in a worker is told from there: the story does such a job again itself.
So errors are those of a story that has no workers, and a worker that is killed costs its jobs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import select
import signal
import struct
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from itertools import cycle
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

DEPTH: Final = 2  # jobs a worker has: one in hand, and the next, so that it never waits
LENGTH: Final = struct.Struct("<Q")
TASKS: Final = Path("/proc/self/task")

Function = Callable[[Any], Any]


def may_fork() -> bool:
    """Whether nobody else's thread could hold a lock that a forked process would wait for."""
    return sys.platform == "linux" and TASKS.is_dir() and len(os.listdir(TASKS)) == 1


class Forks(Executor):
    """Worker processes, forked when there is a second job for the one function they serve.

    Nobody else may wait for the process's children meanwhile.
    """

    def __init__(self, count: int, room: int) -> None:
        self._count = count
        self._room = room  # bytes of a result
        self._workers: list[_Worker] = []
        self._unsent: deque[_Pulled] = deque()

    def submit(self, function: Function, /, *jobs: Any, **_: Any) -> Future[Any]:
        (job,) = jobs
        future = _Pulled(self, function, job)
        self._unsent.append(future)
        return future

    def pull(self, *, wait: bool) -> None:
        """Hand out jobs, and take what results there are; at least one if asked to wait."""
        if not self._workers and self._count and len(self._unsent) > 1:
            self._fork(self._unsent[0].function)
        self._hand_out()
        busy = {worker.results: worker for worker in self._workers if worker.sent}
        if wait and not busy:
            self._do_one()
            return
        poll = select.poll()
        for results in busy:
            poll.register(results, select.POLLIN)
        for results, _ in poll.poll(None if wait else 0):
            if not busy[results].take():
                self._workers.remove(busy[results])
                self._count -= 1
        self._hand_out()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers: they own nothing, so nothing is lost."""
        del wait, cancel_futures
        while self._workers:
            self._workers.pop().end()

    def _fork(self, function: Function) -> None:
        while len(self._workers) < self._count:
            self._workers.append(_Worker(function, self._room, self._workers))

    def _do_one(self) -> None:
        """A job that no worker has."""
        future = self._unsent.popleft()
        if future.set_running_or_notify_cancel():
            future.redo()

    def _hand_out(self) -> None:
        for depth in range(DEPTH):
            for worker in self._workers:
                while self._unsent and len(worker.sent) <= depth:
                    future = self._unsent.popleft()
                    if future.set_running_or_notify_cancel():
                        worker.send(future)


class _Pulled(Future[Any]):
    """A result that is fetched by whoever asks for it: no thread waits for workers."""

    def __init__(self, forks: Forks, function: Function, job: Any) -> None:
        super().__init__()
        self._forks = forks
        self.function = function
        self.job = job

    def done(self) -> bool:
        self._forks.pull(wait=False)
        return super().done()

    def result(self, timeout: float | None = None) -> Any:
        while not super().done():
            self._forks.pull(wait=True)
        return super().result(timeout)

    def redo(self) -> None:
        """The job, done by the story."""
        try:
            self.set_result(self.function(self.job))
        except Exception as error:  # noqa: BLE001 - raised when it is this job's turn
            self.set_exception(error)


class _Worker:
    """One forked process, seen from the story."""

    def __init__(self, function: Function, room: int, others: list[_Worker]) -> None:
        jobs, to_worker = os.pipe()
        self.results, from_worker = os.pipe()
        self._slots = [mmap.mmap(-1, room) for _ in range(DEPTH)]
        self._turn = cycle(self._slots)
        self._jobs = os.fdopen(to_worker, "wb", buffering=0)
        self.sent: deque[_Pulled] = deque()
        self._pid = os.fork()
        if self._pid == 0:
            # Workers forked before must see their pipe end when the story does.
            for story_side in (self, *others):
                story_side.close()
            _serve(function, os.fdopen(jobs, "rb"), from_worker, self._slots)
        os.close(jobs)
        os.close(from_worker)

    def send(self, future: _Pulled) -> None:
        self.sent.append(future)
        with contextlib.suppress(BrokenPipeError):  # told by `take`
            self._jobs.write(pickle.dumps(future.job, pickle.HIGHEST_PROTOCOL))

    def take(self) -> bool:
        """The next result; False if the worker is no more."""
        length = os.read(self.results, LENGTH.size)
        if not length:
            for future in self.sent:
                future.redo()
            self.end()
            return False
        future, slot = self.sent.popleft(), next(self._turn)
        (size,) = LENGTH.unpack(length)
        if size:
            with memoryview(slot) as whole:
                future.set_result(pickle.loads(whole[:size]))  # noqa: S301 - our own process wrote it
        else:
            future.redo()
        return True

    def close(self) -> None:
        self._jobs.close()
        os.close(self.results)

    def end(self) -> None:
        self.close()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)


def _serve(function: Function, jobs: BinaryIO, results: int, slots: list[mmap.mmap]) -> NoReturn:
    """What a worker does until the story closes its pipe; it runs nothing of the story's ends."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the story is told, and ends its workers
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for slot in cycle(slots):
            job = pickle.load(jobs)  # noqa: S301 - the story wrote it
            slot.seek(0)
            try:
                pickle.dump(function(job), slot, pickle.HIGHEST_PROTOCOL)
                size = slot.tell()
            except Exception:  # noqa: BLE001 - the story does it again, and tells
                size = 0
            os.write(results, LENGTH.pack(size))
    finally:
        os._exit(0)

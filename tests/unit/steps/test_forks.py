"""forks: worker processes give what the story would have given by itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from kvq_cli.steps.forks import DEPTH, Forks, may_fork
from kvq_cli.steps.work import AHEAD, in_order

# Test runners have threads; what is forked here touches nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
ROOM = 1 << 16
STORY = os.getpid()


@contextmanager
def forks(count=1, room=ROOM):
    pool = Forks(count, room)
    try:
        yield pool
    finally:
        pool.shutdown()


def pid_of(job):
    time.sleep(0.002)
    return job, os.getpid()


@pytest.mark.parametrize("count", [1, 3])
def test_order_and_who_did_it(count):
    """Results come in order; every worker had a part in them, and the story what was left."""
    with forks(count) as pool:
        results = list(in_order(pool, pid_of, range(60)))
    assert [job for job, _ in results] == list(range(60))
    who = {pid for _, pid in results}
    assert len(who - {os.getpid()}) == count
    if 2 * count < AHEAD - 2:
        assert os.getpid() in who


def test_a_worker_inherits_what_is_no_message():
    """The function, and what it refers to, need not be picklable."""
    factor, lock = 3, open(os.devnull, "rb")  # noqa: SIM115
    with lock, forks() as pool:
        assert list(in_order(pool, lambda job: job * factor + lock.fileno() * 0, range(9))) == [
            job * 3 for job in range(9)
        ]


def test_one_job_forks_nobody():
    """A story of one job is done by the story."""
    with forks() as pool:
        assert list(in_order(pool, pid_of, [5])) == [(5, os.getpid())]
        assert pool._workers == []


def test_a_failure_is_told_in_its_turn():
    """It is the story's own exception, after all results before it."""
    results = []

    def work(job):
        if job == 7:
            raise ValueError(os.getpid(), job)
        return job

    with pytest.raises(ValueError, match="7") as failure, forks() as pool:
        results.extend(in_order(pool, work, range(100)))
    assert results == list(range(7))
    assert failure.value.args[0] == os.getpid()


def test_a_result_without_room():
    """It is made again by the story: slower, and the same."""
    with forks() as pool:
        results = list(in_order(pool, lambda job: (os.getpid(), bytes(job)), [10, ROOM, 20] * 5))
    assert [len(data) for _, data in results] == [10, ROOM, 20] * 5
    assert {pid for pid, data in results if len(data) == ROOM} == {os.getpid()}


def test_results_that_cannot_be_sent():
    """Likewise what cannot be pickled."""
    with forks() as pool:
        results = list(in_order(pool, lambda job: lambda: job, range(9)))
    assert [result() for result in results] == list(range(9))


def test_a_killed_worker_costs_its_jobs_only():
    """The story does them, and goes on without the worker."""

    def work(job):
        if os.getpid() != STORY and job > 4:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
        return job

    with forks(2) as pool:
        assert list(in_order(pool, work, range(40))) == list(range(40))
        assert pool._workers == []


def test_a_result_without_workers_is_made_by_who_asks():
    """An executor's own promise: result() never waits for nobody."""
    with forks() as pool:
        assert pool.submit(abs, -3).result() == 3
        assert pool.submit(abs, -4).result() == 4


def test_slots_take_turns():
    """No result lies in the slot of one that was not taken: they come back as they were."""
    with forks(1) as pool:
        futures = [pool.submit(lambda job: bytes([job]) * 999, job) for job in range(4 * DEPTH)]
        assert [future.result()[5] for future in futures] == list(range(4 * DEPTH))


def test_a_process_with_other_threads_does_not_fork():
    """Another thread may hold a lock that nobody would give back in the child."""
    program = """
import threading
from kvq_cli.steps.forks import may_fork
print(may_fork())
threading.Thread(target=threading.Event().wait, daemon=True).start()
print(may_fork())
"""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, env=environment
    )
    expected = [b"True", b"False"] if sys.platform == "linux" else [b"False", b"False"]
    assert ran.stdout.split() == expected, ran.stderr
    assert may_fork() in (True, False)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux only")
def test_workers_end_with_a_story_that_is_killed():
    """A pipe that all of them hold is closed soon after: none is left behind."""
    program = """
import os, sys, time
from kvq_cli.steps.forks import Forks
from kvq_cli.steps.work import AHEAD, in_order
pool = Forks(3, 1 << 16)
for result in in_order(pool, lambda job: os.getpid(), range(1000)):
    print(result, flush=True)
    time.sleep(0.01)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as story:
        for _ in range(8):
            assert story.stdout.readline()
        story.kill()
        story.stdout.read()  # ends when the last worker has closed its copy
        assert story.wait() == -signal.SIGKILL

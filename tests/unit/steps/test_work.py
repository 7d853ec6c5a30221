"""work: results in order, few jobs under way, and an end when a job fails."""

from __future__ import annotations

import threading
import time

import pytest

from kvq_cli.errors import UsageError
from kvq_cli.steps import work
from kvq_cli.steps.work import AHEAD, in_order, thread_count, workers


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    """Threads even where processes could be forked, which have tests of their own."""
    monkeypatch.setattr(work, "may_fork", lambda: False)


def test_order_and_bound():
    """Results come in the order of the jobs; at most AHEAD jobs are drawn before a result."""
    drawn = []

    def jobs():
        for job in range(20):
            drawn.append(job)
            yield job

    def work(job):
        time.sleep(0.002 * (job % 3))
        return job * job

    with workers(4) as pool:
        for at, result in enumerate(in_order(pool, work, jobs())):
            assert result == at * at
            assert len(drawn) <= at + AHEAD


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_failing_job_ends_the_story(threads):
    """The first failure in order is raised, after the results before it; waiting jobs are dropped.

    It is so for any number of threads.
    """
    started, results = [], []

    def work(job):
        started.append(job)
        time.sleep(0.001)
        if job in (3, 4):
            raise ValueError(job)
        return job

    with pytest.raises(ValueError, match="3"), workers(threads) as pool:
        results.extend(in_order(pool, work, range(100)))
    assert results == [0, 1, 2]
    assert len(started) <= 3 + AHEAD


@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_to_draw_a_job(threads):
    """It is told when AHEAD jobs were drawn before it, whatever the number of threads."""
    results = []

    def jobs():
        yield from range(20)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"), workers(threads) as pool:
        results.extend(in_order(pool, abs, jobs()))
    assert results == list(range(20 - AHEAD + 1))


def test_the_caller_is_one_of_the_threads():
    """One thread is the caller's; of two, the caller's does what the other has not begun."""
    seen = set()

    def work(job):
        seen.add(threading.current_thread())
        time.sleep(0.001)
        return job

    with workers(1) as pool:
        assert pool is None
        assert list(in_order(pool, work, range(9))) == list(range(9))
    assert seen == {threading.current_thread()}
    with workers(2) as pool:
        assert list(in_order(pool, work, range(40))) == list(range(40))
    assert threading.current_thread() in seen
    assert len(seen) == 2


def test_thread_count():
    """0 is every processor, a negative number is usage."""
    assert thread_count(3) == 3
    assert thread_count(0) >= 1
    with pytest.raises(UsageError):
        thread_count(-1)

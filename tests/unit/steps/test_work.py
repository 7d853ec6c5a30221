"""work: results in order, few jobs under way, and an end when a job fails."""

from __future__ import annotations

import threading
import time

import pytest

from kvq_cli.errors import UsageError
from kvq_cli.steps.work import AHEAD, in_order, thread_count, thread_pool


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

    with thread_pool(4) as pool:
        for at, result in enumerate(in_order(pool, work, jobs())):
            assert result == at * at
            assert len(drawn) <= at + AHEAD


def test_a_failing_job_ends_the_story():
    """The first failure in order is raised, and waiting jobs are dropped."""
    started = []
    gate = threading.Event()

    def work(job):
        started.append(job)
        if job == 0:
            gate.wait(5)
            raise ValueError(job)
        return job

    threading.Timer(0.05, gate.set).start()
    with pytest.raises(ValueError, match="0"), thread_pool(1) as pool:
        list(in_order(pool, work, range(100)))
    assert len(started) <= AHEAD


def test_thread_count():
    """0 is every processor, a negative number is usage."""
    assert thread_count(3) == 3
    assert thread_count(0) >= 1
    with pytest.raises(UsageError):
        thread_count(-1)

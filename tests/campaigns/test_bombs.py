"""Small files that ask for much: refused soon, in little memory, with the declared exit code.

Each command runs in a process of its own whose address space is limited. What it may take
beyond the same command on a small valid file, measured in the same run, is MEMORY and SECONDS.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from statistics import median
from typing import NamedTuple

import pytest

from support.bombs import BOMBS, small
from support.shell import COMMAND, ERROR, environment

MEMORY = 64 << 20
SECONDS = 1.0
SPACE = 4 << 30  # of addresses, not of memory: libraries map more than they use
ROUNDS = 3
FIGURE = "bombs, all refused in base + 64 MiB and base + 1 s of processor time"
# A child's peak begins with that of the process it was forked from, so a small one stands
# between the command and pytest.
PROBE = """
import json, resource, subprocess, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = used.ru_utime + used.ru_stime
print(json.dumps([done.returncode, done.stderr.decode(), used.ru_maxrss, seconds]))
"""
FAST = ("frame that states 8 bytes and holds 1 GiB",)


class Ran(NamedTuple):
    code: int
    err: str
    memory: int
    seconds: float


def run(*words) -> Ran:
    probe = [sys.executable, "-S", "-c", PROBE, str(SPACE), *COMMAND]
    env = environment(OPENBLAS_NUM_THREADS="1")
    done = subprocess.run(
        [*probe, *map(str, words)], capture_output=True, env=env, check=True, timeout=120
    )
    code, err, kilobytes, seconds = json.loads(done.stdout)
    return Ran(code, err, kilobytes << 10, seconds)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """What each command takes for a small valid file; made when it is asked for."""
    found: dict[str, Ran] = {}

    def base(kind):
        if kind not in found:
            words = small(kind, tmp_path_factory.mktemp(kind))
            ran = [run(*words) for _ in range(ROUNDS)]
            assert {each.code for each in ran} == {0}, ran[0].err
            memory = int(median(each.memory for each in ran))
            found[kind] = Ran(0, "", memory, median(each.seconds for each in ran))
        return found[kind]

    return base


def explode(name, bases, folder, record) -> None:
    bomb = BOMBS[name]
    base = bases(bomb.kind)
    words = bomb.build(folder)
    before = sorted(os.listdir(folder))
    ran = run(*words)
    match = ERROR.fullmatch(ran.err.strip())
    assert match, ran.err
    assert (ran.code, match[1]) == (bomb.code, bomb.error), ran.err
    assert sorted(os.listdir(folder)) == before
    more = ran.memory - base.memory, ran.seconds - base.seconds
    record("figure", (FIGURE, 1))
    record("measured", f"{name}: {more[0] / 2**20:.0f} MiB, {more[1]:.2f} s beyond its base")
    assert more[0] <= MEMORY, f"{more[0] >> 20} MiB beyond {base.memory >> 20} MiB"
    assert more[1] <= SECONDS, f"{more[1]:.2f} s beyond {base.seconds:.2f} s"


def test_there_are_enough():
    """25 bombs or more."""
    assert len(BOMBS) >= 25


@pytest.mark.parametrize("name", FAST)
def test_bombs(name, bases, tmp_path, record_property):
    """One of them."""
    explode(name, bases, tmp_path, record_property)


@pytest.mark.long
@pytest.mark.parametrize("name", BOMBS)
def test_every_bomb(name, bases, tmp_path, record_property):
    """All of them."""
    explode(name, bases, tmp_path, record_property)

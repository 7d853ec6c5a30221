"""rounds: wall time of calls over many blocks, on one thread or two, and medians of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

THREADS: Final = 2  # what "two threads" means everywhere here
JOB: Final = 1 << 20  # source bytes that kvq gives to a codec at a time


def jobs(blocks: NDArray[Any], nbytes: int = JOB) -> list[NDArray[Any]]:
    """Neighbouring blocks, about so many bytes each, all of one shape."""
    count = min(len(blocks), max(1, nbytes // blocks[0].nbytes))
    return [blocks[at : at + count] for at in range(0, len(blocks) - count + 1, count)]


def timed(call: Callable[[Any], object], blocks: Sequence[Any], pool: Executor | None) -> float:
    """Seconds for a call on each block; with a pool each of its threads takes every other."""
    start = time.perf_counter()
    if pool is None:
        _each(call, blocks)
    else:
        shares = [blocks[at::THREADS] for at in range(THREADS)]
        for done in [pool.submit(_each, call, share) for share in shares]:
            done.result()
    return time.perf_counter() - start


def _each(call: Callable[[Any], object], blocks: Sequence[Any]) -> None:
    for block in blocks:
        call(block)


def cast(block: NDArray[np.float16]) -> NDArray[np.float32]:
    """A, the measure that ratios are to."""
    return block.astype(np.float32)


def cast_now() -> float:
    """A in this process, now: the least nanoseconds an element of a few tries."""
    blocks = [np.ones(1 << 19, np.float16) for _ in range(8)]
    return min(timed(cast, blocks, None) for _ in range(12)) / (8 << 19) * 1e9


def ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median over rounds of the ratio within a round."""
    return median(one / other for one, other in zip(times, others, strict=True))


def nanoseconds(seconds: Sequence[float], elements: int) -> float:
    return round(median(seconds) / elements * 1e9, 4)


def megabytes(seconds: Sequence[float], nbytes: int) -> int:
    """Megabytes of source a second, by the median."""
    return round(nbytes / median(seconds) / 1e6)


if __name__ == "__main__":
    print(cast_now())

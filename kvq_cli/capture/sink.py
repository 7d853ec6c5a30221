"""sink: the open files that rows are written to, laid end to end as their capture's are.

Spec: formats/capture.md, section "Folders".

Threads and forked processes share a Sink. Bytes that several of them must change by reading
them first are changed under a lock: the system's against processes, a mutex against threads.
"""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from kvq_cli.capture.source import behind
from kvq_cli.digest import Buffer
from kvq_cli.errors import FileError

SPARE: Final = 128  # files that a process has open beside those of a capture


def allow_open(count: int) -> None:
    """Let the process have so many more files open, as far as the system's hard limit goes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + SPARE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class Sink:
    """Files open for reading and writing, and where each begins."""

    def __init__(self, fds: Sequence[int], bases: Sequence[int] = (0,)) -> None:
        self._fds, self._bases = fds, bases
        self._mutex = threading.Lock()
        self._held = bytearray()  # what is changed, under the mutex

    def write(self, offset: int, *buffers: Buffer) -> None:
        """Put the buffers, one behind the other; all of them lie in one file."""
        views: Sequence[memoryview] = [memoryview(buffer).cast("B") for buffer in buffers]
        fd, at = self._place(offset)
        left = sum(map(len, views))
        while left:
            try:
                count = os.pwritev(fd, views, at)
            except OSError as error:
                raise FileError("E601", f"write at byte {offset}: {error.strerror}") from error
            views = behind(views, count)
            at, left = at + count, left - count

    @contextmanager
    def changed(self, offset: int, size: int) -> Iterator[memoryview]:
        """Bytes as they are, written back as the block leaves them; not to be kept."""
        fd, at = self._place(offset)
        with self._mutex:
            if len(self._held) < size:
                self._held = bytearray(size)
            data = memoryview(self._held)[:size]
            fcntl.lockf(fd, fcntl.LOCK_EX, size, at)
            try:
                _fill(fd, data, at)
                yield data
                self.write(offset, data)
            except OSError as error:
                raise FileError("E601", f"read at byte {offset}: {error.strerror}") from error
            finally:
                fcntl.lockf(fd, fcntl.LOCK_UN, size, at)

    def _place(self, offset: int) -> tuple[int, int]:
        at = bisect_right(self._bases, offset) - 1
        return self._fds[at], offset - self._bases[at]


def _fill(fd: int, data: memoryview, at: int) -> None:
    """The bytes that are there, which a system may give piece by piece; zeros behind the end."""
    while data:
        count = os.preadv(fd, [data], at)
        if count == 0:
            data[:] = bytes(len(data))
        data, at = data[count or len(data) :], at + count

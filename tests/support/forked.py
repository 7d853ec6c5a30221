"""forked: a command in a forked child of this process: as a process of its own, in milliseconds.

pid = start("compress", path)               begins; stdin is empty, nobody hears it
ended(pid)                                  its exit code; minus the signal that ended it
become(arguments, stdin, out, err)          the child's own first steps
answer()                                    ... and what it does then, to the end
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from kvq_cli import __main__


def nothing() -> None:
    """What is done where nothing is to be done."""


def start(
    *arguments: object,
    stdin: int | None = None,
    out: int | None = None,
    err: int | None = None,
    first: Callable[[], object] = nothing,
) -> int:
    """The number of a child that runs the command, after what is to be done `first`."""
    # Python has things to do in a child before ours, which must not swallow an interrupt.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid
    try:
        void = os.open(os.devnull, os.O_RDWR)
        streams = [void if each is None else each for each in (stdin, out, err)]
        become(list(map(str, arguments)), streams)
        first()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        answer()
    finally:
        os._exit(98)  # what went wrong is the test's own


def become(arguments: Sequence[str], streams: Sequence[int]) -> None:
    """The process of a command as Python begins it, on streams of its own."""
    for number, fd in enumerate(streams):
        os.dup2(fd, number)
    for fd in {*streams} - {0, 1, 2}:
        os.close(fd)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False, errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["kvq", *arguments]


def answer() -> NoReturn:
    """The command, to the end of the process."""
    try:
        __main__.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))


def ended(pid: int) -> int:
    """How a child ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

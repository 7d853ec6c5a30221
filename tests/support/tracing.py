"""tracing: a forked child, one system call of which is refused, cut short, or its last.

    traced(body)                               its exit code, its calls, what it left open
    traced(body, 17, Refuse(errno.EIO))        call 17 is not made, and gives EIO
    traced(body, 17, Cut())                    call 17 reads or writes half of what it was asked
    traced(body, 17, Signal(SIGKILL))          the child is gone before call 17 is made
    traced(body, 17, Signal(SIGKILL, late=True))      ... or when it is done

Faults happen at the border between the process and the system, by ptrace: whatever stands above
it, Python's own retries as well, is what runs every day. Linux on x86-64; elsewhere `POSSIBLE`
is false. A child is forked from a process that has everything imported, so that it costs
milliseconds, and its calls are those of the command alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from kvq_cli.errors import INTERRUPTED
from support.forked import nothing

POSSIBLE = sys.platform == "linux" and platform.machine() == "x86_64"

READS = {0: "read", 17: "pread", 19: "readv", 295: "preadv"}
WRITES = {1: "write", 18: "pwrite", 20: "writev", 296: "pwritev"}
LOOKS = {4: "stat", 5: "fstat", 6: "lstat", 217: "getdents", 262: "newfstatat", 332: "statx"}
CHANGES = {
    2: "open",
    3: "close",
    73: "flock",
    74: "fsync",
    75: "fdatasync",
    77: "ftruncate",
    82: "rename",
    83: "mkdir",
    84: "rmdir",
    86: "link",
    87: "unlink",
    90: "chmod",
    91: "fchmod",
    257: "openat",
    258: "mkdirat",
    263: "unlinkat",
    264: "renameat",
    265: "linkat",
    268: "fchmodat",
    316: "renameat2",
}
CALLS = {**READS, **WRITES, **LOOKS, **CHANGES}
BY_NAME = {"open", "openat", "opendir", "stat", "lstat", "newfstatat", "statx", "rename", "mkdir"}
BY_NAME |= {"rmdir", "link", "unlink", "chmod", "mkdirat", "renameat", "linkat", "renameat2"}
VECTORS = {"readv", "writev", "preadv", "pwritev"}

# ptrace(2), and where <sys/user.h> has the registers.
TRACEME, PEEKUSER, POKEUSER, SYSCALL, DETACH, SETOPTIONS = 0, 3, 6, 24, 17, 0x4200
SYSGOOD, EXITKILL = 1, 0x100000
RESULT, THIRD, SECOND, FIRST, NUMBER = 80, 96, 104, 112, 120
NO_CALL = (1 << 64) - 1


@dataclass(frozen=True)
class Refuse:
    """The call is not made; a close is, as the system does."""

    errno: int
    late: bool = False  # it was made, and its failure is a lie


@dataclass(frozen=True)
class Cut:
    """Half of what was asked for, at least one byte."""


@dataclass(frozen=True)
class Signal:
    number: int
    late: bool = False


Fault = Refuse | Cut | Signal


@dataclass
class Traced:
    """What became of a child."""

    code: int | None = None  # None where a signal ended it
    calls: list[tuple[str, int]] = field(default_factory=list)  # and their files, or -1
    hit: bool = False  # the fault happened
    left_open: bool = False


def traced(
    body: Callable[[], None],
    point: int | None = None,
    fault: Fault | None = None,
    *,
    first: Callable[[], None] = nothing,
) -> Traced:
    """Run `body` in a child until it ends in os._exit; the fault happens at the point-th call.

    What is to be done `first` in the child is neither counted nor compared.
    """
    pid = os.fork()
    if pid == 0:
        _child(body, first)
    os.waitpid(pid, 0)  # it stopped itself
    _ptrace(SETOPTIONS, pid, SYSGOOD | EXITKILL)
    found = Traced()
    pending = 0
    while True:
        _ptrace(SYSCALL, pid, pending)
        pending = 0
        _, status = os.waitpid(pid, 0)
        if os.WIFSTOPPED(status) and os.WSTOPSIG(status) == signal.SIGSTOP:
            _ptrace(DETACH, pid, 0)  # the body is over
            _, status = os.waitpid(pid, 0)
        if not os.WIFSTOPPED(status):
            return _ended(found, status)
        if os.WSTOPSIG(status) != signal.SIGTRAP | 0x80:
            pending = os.WSTOPSIG(status)  # its own signal
            continue
        _one_call(pid, found, point, fault)


def _ended(found: Traced, status: int) -> Traced:
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        found.code, found.left_open = (code, False) if code != LEFT_OPEN else (None, True)
    return found


def _one_call(pid: int, found: Traced, point: int | None, fault: Fault | None) -> None:
    """From the beginning of a call, where the child stands, to its end."""
    name = _name(pid)
    here = False
    if name is not None:
        here = len(found.calls) == point and _fits(pid, name, fault)
        found.calls.append((name, -1 if name in BY_NAME else _peek(pid, FIRST)))
        found.hit |= here
    end = _begin_fault(pid, name or "", fault) if here else None
    if _to_its_end(pid) and end is not None:
        end()


def _name(pid: int) -> str | None:
    name = CALLS.get(_peek(pid, NUMBER))
    folder = name == "openat" and _peek(pid, THIRD) & os.O_DIRECTORY
    return "opendir" if folder else name


def _fits(pid: int, name: str, fault: Fault | None) -> bool:
    if not isinstance(fault, Cut):
        return True
    return name in (*READS.values(), *WRITES.values()) and _length(pid, name) > 1


def _to_its_end(pid: int) -> bool:
    """Let the child make its call; False where it is gone."""
    _ptrace(SYSCALL, pid, 0)
    # WNOWAIT: the end of the child is for the loop to see.
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
    if found is None or found.si_code != os.CLD_TRAPPED:
        return False
    os.waitpid(pid, 0)
    return True


def _begin_fault(pid: int, name: str, fault: Fault | None) -> Callable[[], None]:
    """Arrange for the fault; what is to be done when the call is over."""
    if isinstance(fault, Refuse):
        if not fault.late and name != "close":
            _poke(pid, NUMBER, NO_CALL)
        return lambda: _poke(pid, RESULT, (1 << 64) - fault.errno)
    if isinstance(fault, Signal):
        if not fault.late:
            os.kill(pid, fault.number)
            return nothing
        return lambda: os.kill(pid, fault.number)
    if name in VECTORS:
        return _cut_vectors(pid, _length(pid, name) // 2)
    _poke(pid, THIRD, _length(pid, name) // 2)
    return nothing


def _length(pid: int, name: str) -> int:
    if name not in VECTORS:
        return _peek(pid, THIRD)
    return sum(size for _, size in _vectors(pid))


def _vectors(pid: int) -> list[tuple[int, int]]:
    """The buffers of a call: address and length."""
    count = _peek(pid, THIRD)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(_peek(pid, SECOND))
        raw = memory.read(16 * count)
    words = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, len(raw), 8)]
    return list(zip(words[::2], words[1::2], strict=True))


def _cut_vectors(pid: int, left: int) -> Callable[[], None]:
    """Fewer buffers, and a shorter last one, which is put back when the call is over."""
    at = _peek(pid, SECOND)
    vectors = _vectors(pid)
    for number, (_, size) in enumerate(vectors):
        if left <= size:
            _write_length(pid, at, number, left)
            _poke(pid, THIRD, number + 1)
            return lambda: _write_length(pid, at, number, size)
        left -= size
    raise AssertionError("half of a length is less than it")


def _write_length(pid: int, at: int, number: int, size: int) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(at + 16 * number + 8)
        memory.write(size.to_bytes(8, "little"))


LEFT_OPEN = 99  # an exit code that kvq does not have


def _child(body: Callable[[], None], first: Callable[[], None]) -> NoReturn:
    """Run the body under the eyes of the parent, and say at its end what it left open."""
    leave, myself = os._exit, os.getpid()

    def over(code: int) -> NoReturn:
        if os.getpid() == myself:
            os.kill(myself, signal.SIGSTOP)
            # An interrupted process ends, and needs no care for what it has open.
            leave(code if code == INTERRUPTED or open_files() == before else LEFT_OPEN)
        leave(code)

    try:
        os._exit = over  # the way out of kvq
        first()
        before = open_files()
        _ptrace(TRACEME, 0, 0)
        os.kill(myself, signal.SIGSTOP)
        body()
    finally:
        leave(98)  # a body that returns, or fails


def open_files() -> list[str]:
    """Numbers of open files; that of the list itself is the first that is free."""
    return sorted(os.listdir("/proc/self/fd"))


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.restype = ctypes.c_long
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    return library


LIBRARY = _library()


def _ptrace(request: int, pid: int, data: int, at: int = 0) -> int:
    ctypes.set_errno(0)
    found: int = LIBRARY.ptrace(request, pid, at, data)
    if found == -1 and ctypes.get_errno() and request not in (SYSCALL, DETACH):
        raise OSError(ctypes.get_errno(), f"ptrace {request}")
    return found


def _peek(pid: int, register: int) -> int:
    return _ptrace(PEEKUSER, pid, 0, register)


def _poke(pid: int, register: int, data: int) -> None:
    _ptrace(POKEUSER, pid, data, register)

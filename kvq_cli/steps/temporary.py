"""temporary: the name beside a target under which its output grows.

    .kvq-<16 hex digits, from the target's name>.tmp/NAME    random digits where that is taken

The folder is locked (flock) as long as its writer lives. What a killed writer left is locked by
nobody: the next one to the same target removes it, and begins anew. Where a file system has no
such locks, nobody can tell, and nothing is removed.

What this process has made is remembered until it is gone, so that an interrupt leaves nothing,
wherever it comes (`remove_all`).
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from kvq_cli.digest import plain

PREFIX: Final = ".kvq-"
SUFFIX: Final = ".tmp"
DIGITS: Final = 16
FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NO_LOCKS: Final = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM)

_made: dict[Path, int] = {}  # folders that are there, and their descriptors


@contextmanager
def temporary(target: Path) -> Iterator[Path]:
    """A name for what shall be the target; what lies there in the end goes."""
    folder = _make(target)
    try:
        yield folder / target.name
    finally:
        with held():
            _remove(folder)


def remove_all() -> None:
    """What an interrupt has left of this process's own."""
    with held():
        for folder in list(_made):
            _remove(folder)


@contextmanager
def held() -> Iterator[None]:
    """An interrupt that comes in the block waits for its end."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPTS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def beside(target: Path, digits: str, suffix: str = SUFFIX) -> Path:
    return target.with_name(f"{PREFIX}{digits}{suffix}")


def asked_mode(most: int) -> int:
    """The mode that the user's umask leaves of the widest one."""
    with held():
        umask = os.umask(0)
        os.umask(umask)
    return most & ~umask


def _make(target: Path) -> Path:
    named = beside(target, plain(os.fsencode(target.name)).hex()[:DIGITS])
    with held():
        _remove_stale(named)
        for folder in (named, beside(target, secrets.token_hex(DIGITS // 2))):
            if _is_made(folder):
                return folder
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))


def _is_made(folder: Path) -> bool:
    """Make the folder and lock it; False where somebody else has the name."""
    try:
        folder.mkdir(mode=0o700)
        _made[folder] = os.open(folder, FOLDER)
    except (FileExistsError, FileNotFoundError) as error:
        if isinstance(error, FileNotFoundError) and not folder.parent.exists():
            raise
        return False
    except OSError:
        with suppress(OSError):
            folder.rmdir()
        raise
    if _is_mine(folder, _made[folder]):
        return True
    os.close(_made.pop(folder))  # taken for a stale one, and removed
    return False


def _is_mine(folder: Path, fd: int) -> bool:
    try:
        return _is_locked(folder, fd)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return True
        _remove(folder)
        raise


def _is_locked(folder: Path, fd: int) -> bool:
    """Whether nobody else has the lock, and the name still leads to what is locked."""
    with suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), os.lstat(folder))
    return False


def _remove_stale(folder: Path) -> None:
    """Remove what a killed writer of this user left; nothing where that cannot be told."""
    try:
        fd = os.open(folder, FOLDER)
    except OSError:
        return
    with suppress(OSError):
        if os.fstat(fd).st_uid == os.geteuid() and _is_locked(folder, fd):
            shutil.rmtree(folder, ignore_errors=True)
    os.close(fd)


def _remove(folder: Path) -> None:
    fd = _made.pop(folder, -1)
    with suppress(OSError):
        if os.path.samestat(os.fstat(fd), os.lstat(folder)):
            shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.close(fd)

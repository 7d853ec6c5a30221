"""renaming: what is complete gets its name, in one step where the system can.

    rename_new     the name was free; FileExistsError where it is not
    rename_over    what had the name is gone

Linux's renameat2 does both in one step for files and folders alike. Where a system or a file
system lacks it, a free name is claimed by something empty first; and a folder that is replaced
is for a moment beside its name, as `.kvq-<16 hex digits>.old`, and put back if all goes wrong.
"""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from kvq_cli.steps.temporary import DIGITS, beside, held

HERE: Final = -100  # AT_FDCWD
NOREPLACE: Final = 1
EXCHANGE: Final = 2
LACKING: Final = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)
OLD: Final = ".old"


def rename_new(old: Path, new: Path) -> None:
    """Give a file or folder a name that nobody has."""
    with held():
        if _renameat2(old, new, NOREPLACE):
            return
        _claim(old, new)
        try:
            old.rename(new)
        except BaseException:
            _give_up(new)
            raise


def rename_over(old: Path, new: Path) -> None:
    """Give a name to a folder, whoever has it; what had it is at `old` then, or gone."""
    with held():
        while not _is_over(old, new):
            with suppress(FileExistsError):  # somebody was faster, and is replaced
                rename_new(old, new)
                return


def _is_over(old: Path, new: Path) -> bool:
    """Take the name from whoever has it; False where nobody does."""
    if not os.path.lexists(new):
        return False
    try:
        if not _renameat2(old, new, EXCHANGE):
            _move_over(old, new)
    except FileNotFoundError:
        return False
    return True


def _renameat2(old: Path, new: Path, flag: int) -> bool:
    """False where the system cannot."""
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if call is None:
        return False
    if call(HERE, os.fsencode(old), HERE, os.fsencode(new), flag) == 0:
        return True
    number = ctypes.get_errno()
    if number in LACKING:
        return False
    raise OSError(number, os.strerror(number), str(old), None, str(new))


def _claim(old: Path, new: Path) -> None:
    """Take the name, with what a rename may replace; it is empty for a moment."""
    if old.is_dir():
        new.mkdir()
    else:
        os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))


def _give_up(new: Path) -> None:
    """Nothing has come to the name that was claimed."""
    with suppress(OSError):
        if new.is_dir():
            new.rmdir()
        elif new.stat().st_size == 0:
            new.unlink()


def _move_over(old: Path, new: Path) -> None:
    aside = beside(new, secrets.token_hex(DIGITS // 2), OLD)
    try:
        new.rename(aside)
        rename_new(old, new)
    except BaseException:
        if os.path.lexists(aside) and not os.path.lexists(new):
            aside.rename(new)
        raise
    if aside.is_dir() and not aside.is_symlink():
        shutil.rmtree(aside, ignore_errors=True)
    else:
        aside.unlink()

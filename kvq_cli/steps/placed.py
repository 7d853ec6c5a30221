"""placed: the files that a restore writes by offset: one file, a pipe's spool, or a folder.

A folder is filled under another name beside its target, synced, and put in place by one step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from kvq_cli.capture.files import Files
from kvq_cli.capture.sink import Sink, allow_open
from kvq_cli.errors import FileError, reason
from kvq_cli.steps.output import (
    STDOUT,
    check_output,
    copy_to,
    open_output,
    spool,
    sync_folder,
)
from kvq_cli.steps.renaming import rename_new, rename_over
from kvq_cli.steps.temporary import asked_mode, temporary


class Placed(Protocol):
    """Where restored files go."""

    def begin(self, files: Files) -> Sink:
        """Make the files, with what no tensor holds; rows and tensors are for the sink."""
        ...

    def wrote(self, count: int) -> None:
        """So many more bytes are there."""
        ...


@contextmanager
def open_placed(
    path: Path, *, folder: bool, force: bool, inputs: tuple[Path, ...]
) -> Iterator[Placed]:
    """The target, in place when the block ends well and gone when it does not."""
    if folder:
        with _open_folder(path, force=force, inputs=inputs) as placed:
            yield placed
        return
    with open_output(path, force=force, inputs=inputs) as output, ExitStack() as stack:
        fd = output.fd if output.seekable else stack.enter_context(spool())
        yield PlacedFile(fd, output.wrote)
        if not output.seekable:
            copy_to(fd, output)


class PlacedFile:
    """One open file."""

    def __init__(self, fd: int, wrote: Callable[[int], None]) -> None:
        self._fd, self.wrote = fd, wrote

    def begin(self, files: Files) -> Sink:
        return filled(files, [self._fd])


class _Folder:
    def __init__(self, root: Path, stack: ExitStack) -> None:
        self._root, self._stack = root, stack
        self.fds: list[int] = []

    def begin(self, files: Files) -> Sink:
        allow_open(2 * len(files.files))  # those of a capture may be open beside them
        for file in files.files:
            path = self._root / (file.name or "")
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            self._stack.callback(os.close, fd)
            self.fds.append(fd)
        return filled(files, self.fds)

    def wrote(self, count: int) -> None:
        """The disk is told in the end."""


def filled(files: Files, fds: list[int]) -> Sink:
    """Open files as long as they will be, with what no tensor holds."""
    sink = Sink(fds, files.bases)
    for file, fd, base in zip(files.files, fds, files.bases, strict=True):
        os.ftruncate(fd, file.size)
        sink.write(base, file.head)
    return sink


@contextmanager
def _open_folder(path: Path, *, force: bool, inputs: tuple[Path, ...]) -> Iterator[_Folder]:
    if path == STDOUT:
        raise FileError("E105", "a folder is not written to standard output; name it with -o")
    if not path.is_dir():
        check_output(path, force=force, inputs=inputs)
    elif not force:
        raise FileError("E103", f"output {path} exists; use --force to replace it")
    try:
        with temporary(path) as root:
            root.mkdir(mode=0o700)
            with ExitStack() as stack:
                folder = _Folder(root, stack)
                yield folder
                for fd in folder.fds:
                    os.fsync(fd)
            for inner, _, _ in os.walk(root):
                sync_folder(Path(inner))
            _put_in_place(root, path, force=force)
    except OSError as error:
        raise FileError("E601", f"cannot write {path}: {reason(error)}") from error


def _put_in_place(root: Path, path: Path, *, force: bool) -> None:
    root.chmod(asked_mode(0o777))
    try:
        if force:
            rename_over(root, path)
        else:
            rename_new(root, path)
    except FileExistsError as error:
        raise FileError("E103", f"output {path} exists; use --force to replace it") from error
    sync_folder(path.parent)

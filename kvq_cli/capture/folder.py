"""folder: the safetensors files of a folder, or those that an index names, as one capture.

Spec: formats/capture.md, section "Folders".

Files of other kinds, such as an index, are carried as they are. Names are sorted, so that the
same files give the same capture wherever they lie.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from kvq_cli import jsontext
from kvq_cli.capture.files import MAX_HEADS, File, Files
from kvq_cli.capture.header import LENGTH_SIZE, MAX_HEADER, shown
from kvq_cli.capture.sink import allow_open
from kvq_cli.capture.source import Source, Writable
from kvq_cli.errors import CaptureError, FileError, ProfileError, reason

SUFFIX: Final = ".safetensors"
INDEX: Final = ".index.json"
WEIGHT_MAP: Final = "weight_map"
MAX_FILES: Final = 4096
MAX_NAME: Final = 512
MAX_HEAD: Final = LENGTH_SIZE + MAX_HEADER


class Folder(Source):
    """Files laid end to end; a context manager."""

    __slots__ = ("_opened", "_stack")

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """A folder, with all that is in it, or an index, with the files that it names."""
        self.path = os.fspath(path)
        self._fd = -1
        self._stack = ExitStack()
        self._opened: list[Source | None] = []
        try:
            before = os.stat(path)
            root, names = _named(Path(path))
            allow_open(len(names))
            self.files = Files(self._files(root, names))
            _check_same(before, os.stat(path))
        except OSError as error:
            self.close()
            raise FileError("E601", f"{shown(self.path)}: {reason(error)}") from error
        except BaseException:
            self.close()
            raise

    def read_into(self, offset: int, *buffers: Writable) -> None:
        at = bisect_right(self.files.bases, offset) - 1
        source = self._opened[at]
        assert source is not None
        source.read_into(offset - self.files.bases[at], *buffers)

    def check_unchanged(self) -> None:
        for source in filter(None, self._opened):
            source.check_unchanged()

    def close(self) -> None:
        self._stack.close()

    def _files(self, root: Path, names: Iterable[str]) -> Iterator[File]:
        """The files in order, opened; CaptureError E207 where their heads are too large."""
        left = MAX_HEADS
        for name in names:
            source = self._open_file(root, name)
            self._opened.append(source)
            header = source.header if source else None
            file = File(name, header.raw if header else _head(root, name), header)
            left -= len(file.head)
            if left < 0:
                found = "headers, and files beside them, have"
                raise CaptureError("E207", f"{found} more than {MAX_HEADS} bytes together")
            yield file

    def _open_file(self, root: Path, name: str) -> Source | None:
        """The file as a source of tensors; None where it is of another kind."""
        if not name.endswith(SUFFIX):
            return None
        try:
            return self._stack.enter_context(Source(root / name, name))
        except CaptureError as error:
            raise CaptureError(error.error_id, f"{shown(name)}: {error}") from error


def _check_same(before: os.stat_result, now: os.stat_result) -> None:
    """CaptureError E205 where another folder has the name: files may be of one or the other."""
    if not os.path.samestat(before, now):
        raise CaptureError("E205", "was replaced while its files were opened")


def is_index(path: Path) -> bool:
    return path.name.endswith(INDEX) and path.is_file()


def _named(path: Path) -> tuple[Path, list[str]]:
    """Where the files lie, and their names in order."""
    indexed = is_index(path)
    names = sorted({path.name, *_in_index(path)} if indexed else _walked(path))
    for name in names:
        if len(name) > MAX_NAME or not name.isprintable() or "\\" in name:
            raise CaptureError("E204", f'"{shown(name)}": no file name that kvq keeps')
    if not any(name.endswith(SUFFIX) for name in names):
        raise CaptureError("E204", f"no file in it is called *{SUFFIX}")
    return path.parent if indexed else path, names


def _walked(root: Path) -> Iterator[str]:
    count = 0
    for folder, folders, files in os.walk(root, onerror=_raise):
        folders.sort()
        for name in (*folders, *files):
            # What a link leads to may be nobody's business; only tensors are taken from there.
            if (Path(folder) / name).is_symlink() and not name.endswith(SUFFIX):
                what = f"is a link, and only those called *{SUFFIX} are followed"
                raise CaptureError("E204", f'"{shown(name)}" {what}')
        for name in files:
            count += 1
            if count > MAX_FILES:
                found = f"more than {MAX_FILES} files in {shown(str(root))}"
                raise CaptureError("E207", found)
            path = Path(folder) / name
            if not path.is_file():
                raise CaptureError("E204", f'"{shown(name)}" is not a regular file')
            yield path.relative_to(root).as_posix()


def _raise(error: OSError) -> None:
    raise error


def _in_index(path: Path) -> set[str]:
    """The files that an index names, all of which lie beside it."""
    try:
        index = jsontext.loads(_head(path.parent, path.name), limit=MAX_HEADER)
    except ProfileError as error:
        raise CaptureError("E201", f"index is not strict JSON: {shown(str(error))}") from error
    weights = index.get(WEIGHT_MAP) if isinstance(index, dict) else None
    names = list(weights.values()) if isinstance(weights, dict) else []
    told = {name for name in names if isinstance(name, str)}
    if not told or len(told) > MAX_FILES or not all(map(_is_beside, names)):
        raise CaptureError("E201", f"{WEIGHT_MAP} of the index does not name *{SUFFIX} beside it")
    return told


def _is_beside(name: object) -> bool:
    return isinstance(name, str) and "/" not in name and name.endswith(SUFFIX)


def _head(root: Path, name: str) -> bytes:
    """All of a file that is carried as it is."""
    with (root / name).open("rb") as file:
        data = file.read(MAX_HEAD + 1)
    if len(data) > MAX_HEAD:
        found = f'"{shown(name)}" is no {SUFFIX} file, and too large to be carried beside them'
        raise CaptureError("E207", f"{found}: at most {MAX_HEAD} bytes")
    return data

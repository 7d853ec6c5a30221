"""files: the files of a capture laid end to end, so that an offset names a byte of any of them.

Spec: formats/capture.md, section "Folders".

    capture := file*        a file's name, relative to the folder; one file has none
    file    := head data    head: a safetensors header, or all of a file of another kind

Tensors keep their names, and get the number of their file and offsets that count from the
first byte of the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Final

from kvq_cli.capture.header import Header, Tensor
from kvq_cli.record import record

MAX_HEADS: Final = 1 << 25  # bytes of the heads of all files, which are kept in memory


@record
class File:
    """One file; without a header it is carried as it is."""

    name: str | None
    head: bytes
    header: Header | None

    @property
    def size(self) -> int:
        return self.header.file_size if self.header else len(self.head)


class Files:
    """All files of a capture, and their tensors in data order."""

    def __init__(self, files: Iterable[File]) -> None:
        self.files = tuple(files)
        self.bases: list[int] = []
        tensors: list[Tensor] = []
        at = 0
        for number, file in enumerate(self.files):
            self.bases.append(at)
            found = file.header.tensors if file.header else ()
            tensors += found if number == 0 else (_moved(tensor, number, at) for tensor in found)
            at += file.size
        self.size = at
        self.tensors = tuple(tensors)
        self.metadata = self._agreed()
        self.checked = False  # by the official parser
        self._named = {(self.files[each.file].name, each.name): each for each in tensors}

    def tell(self, more: Mapping[str, str]) -> None:
        """What the user says counts before what files say."""
        self.metadata = {**self.metadata, **more}

    def _agreed(self) -> Mapping[str, str]:
        """What files say of themselves, where those that say it agree."""
        told: dict[str, set[str]] = {}
        for file in self.files:
            for key, text in (file.header.metadata if file.header else {}).items():
                told.setdefault(key, set()).add(text)
        return {key: texts.pop() for key, texts in told.items() if len(texts) == 1}

    def tensor(self, name: str, file: str | None = None) -> Tensor:
        """The tensor of this name; where no file is named, in the first one."""
        return self._named[file or self.files[0].name, name]

    @property
    def folder(self) -> bool:
        return self.files[0].name is not None

    def name_of(self, tensor: Tensor) -> str:
        """The name of the tensor's file; "" where there is one file."""
        return self.files[tensor.file].name or ""

    def label(self, tensor: Tensor) -> str:
        """The tensor as it is named to people."""
        return f"{self.name_of(tensor)}: {tensor.name}" if self.folder else tensor.name


def one_file(header: Header) -> Files:
    return Files([File(None, header.raw, header)])


def _moved(tensor: Tensor, number: int, base: int) -> Tensor:
    return replace(tensor, start=tensor.start + base, stop=tensor.stop + base, file=number)

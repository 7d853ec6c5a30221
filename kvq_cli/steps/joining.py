"""joining: one or several containers of a chain restored into the same files.

Spec: formats/container.md, section "Segments".

The files are made when the first container tells what its source's were. Rows of a later one
go behind those before it; of tensors that are not keys or values the first one's are taken,
where there is one container, since nothing says what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from kvq_cli.capture.files import Files
from kvq_cli.capture.sink import Sink
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.reader import Reader
from kvq_cli.errors import KvqError
from kvq_cli.steps.beside import SOURCE
from kvq_cli.steps.chain import read_chain, read_link, starts, whole_manifest
from kvq_cli.steps.inputs import open_reader
from kvq_cli.steps.lost import Fill, Lost
from kvq_cli.steps.pages import PageOpener
from kvq_cli.steps.placed import Placed
from kvq_cli.steps.restore import Placer
from kvq_cli.steps.select import Selection
from kvq_cli.steps.target import Target, new_target, source_target
from kvq_cli.words import DType


def open_chain(paths: Sequence[Path], stack: ExitStack) -> list[Reader]:
    """The containers, each of which continues the one before it."""
    if len(paths) > 1:
        read_chain(paths)
    return [stack.enter_context(open_reader(path)) for path in paths]


def grouped(names: Sequence[str]) -> dict[str, list[str]]:
    """Each container with those behind it that say that they continue something."""
    groups: dict[str, list[str]] = {}
    head = ""
    for name in names:
        if head and _continues(name):
            groups[head].append(name)
        else:
            head = name
            groups[head] = []
    return groups


def _continues(name: str) -> bool:
    try:
        return name != "-" and read_link(name).manifest.continues is not None
    except (KvqError, OSError):
        return False  # it is refused when its turn comes


class Joining:
    """What is restored, and where it goes."""

    def __init__(
        self,
        manifests: Sequence[Manifest],
        selection: Selection,
        layout: str,
        dtype: DType | None,
        fill: Fill | None = None,
    ) -> None:
        self._alone = len(manifests) == 1
        self.manifest = manifests[0] if self._alone else whole_manifest(manifests)
        self._starts = starts(manifests)
        self.selection, self._layout, self._dtype = selection, layout, dtype
        self._fill = fill
        self._placers: list[Placer] = []
        self._placed: tuple[Sink, Target] | None = None

    @property
    def size(self) -> int:
        """Bytes of the restored files."""
        return self._placed[1].files.size if self._placed else 0

    def begin(self, at: int, placed: Placed) -> Callable[[PageOpener, Files], Placer]:
        """What places the rows of one container, once its source's files are known."""

        def begun(opener: PageOpener, files: Files) -> Placer:
            if self._placed is None:
                target = self._target(files)
                sink = placed.begin(target.files)
                for offset, data in target.extras:
                    sink.write(offset, data)
                self._placed = sink, target if self._alone else replace(target, tensors={})
            sink, target = self._placed
            before = self._starts[at]
            cuts = self.selection, self._dtype
            whole = self.manifest, before
            placer = Placer(sink, opener, target, cuts, placed.wrote, whole, self._fill)
            self._placers.append(placer)
            return placer

        return begun

    @property
    def lost(self) -> list[Lost]:
        """What partial containers lack of what was restored."""
        return [placer.lost for placer in self._placers if placer.lost]

    def _target(self, files: Files) -> Target:
        whole = self._alone and not self.selection.cuts
        if whole and self._layout == SOURCE and self._dtype is None:
            return source_target(self.manifest, files)
        return new_target(
            self.manifest,
            files,
            self.selection,
            layout=self._layout,
            dtype=self._dtype,
            others=self._alone,
        )

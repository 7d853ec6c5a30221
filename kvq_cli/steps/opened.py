"""opened: a container as an object: what it holds, and rows of it as arrays.

    with open_container("cache.kvq") as cache:
        keys = cache.rows(Role.KEY, layer=3, heads=[0, 2], tokens=range(100, 200))

Arrays are (H, T, D). Only the pages that hold asked rows are read, each checked whole.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.container.index import PageEntry
from kvq_cli.container.manifest import Manifest, Part
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.digest import text
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.steps.identity import check_identity, check_keys
from kvq_cli.steps.lost import PARTIAL
from kvq_cli.steps.pages import PageOpener
from kvq_cli.steps.restore import open_front, page_of
from kvq_cli.words import DType, Role

Place: TypeAlias = tuple[Role, int, int]  # role, batch entry, layer


class Container:
    """An open container; a context manager. Reads may come from several threads."""

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        try:
            self._reader = Reader(self._source)
            self._opener = PageOpener(self._reader)
            open_front(self._reader, self._opener)
            self._parts = self.manifest.parts_by_layer()
            end = self._reader.footer()
            # By role, batch entry and first layer; and which that is, of each layer.
            self._pages: dict[Place, list[PageEntry]] = defaultdict(list)
            self._first: dict[Place, int] = {}
            for entry in self._reader.entries():
                key = entry.record.key
                pages = self._pages[key.role, key.batch, key.layer]
                if not pages:
                    rows = ((key.role, key.batch, layer) for layer in key.every_layer)
                    self._first.update(dict.fromkeys(rows, key.layer))
                pages.append(entry)
        except BaseException:
            self.close()
            raise
        self.content_root = text(end.content_root)
        self.file_root = text(end.file_root)
        self.file_bytes = end.file_length

    @property
    def manifest(self) -> Manifest:
        """What the header says."""
        return self._reader.manifest

    @property
    def source_bytes(self) -> int:
        """Bytes of the source tensors, in their own dtypes."""
        return self.manifest.source_bytes

    @property
    def float32_bytes(self) -> int:
        """Bytes that keys and values would take as float32."""
        return sum(
            4 * part.batch * part.kv_heads * part.tokens * shape.head_dim * (stop - start)
            for part in self.manifest.parts
            for start, stop in part.layers
            for shape in part.roles.values()
        )

    @property
    def ratio(self) -> float:
        """Source bytes over file bytes, metadata included."""
        return self.source_bytes / self.file_bytes

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self._parts)

    def part(self, layer: int) -> Part:
        """Batch, heads, tokens and dtypes of a layer; UsageError if there is none."""
        if layer not in self._parts:
            raise UsageError("E101", f"no layer {layer}; there are {len(self._parts)}")
        return self._parts[layer]

    def rows(
        self,
        role: Role,
        layer: int,
        *,
        batch: int = 0,
        heads: int | Iterable[int] | None = None,
        tokens: int | Iterable[int] | None = None,
        dtype: DType | None = DType.F32,
    ) -> NDArray[Any]:
        """Rows as (H, T, D), in the order asked for: floats, or with dtype None the source's bits.

        BF16 has no NumPy type: asked for by name it comes as bits, like dtype None.
        """
        part = self.part(layer)
        if role not in part.roles or not 0 <= batch < part.batch:
            raise UsageError("E101", f"no {role.word}s of batch {batch} in layer {layer}")
        shape = part.roles[role]
        asked_heads = _numbers(heads, part.kv_heads, "kv head")
        asked_tokens = _numbers(tokens, part.tokens, "token")
        target = dtype or shape.dtype
        size = (len(asked_heads), len(asked_tokens), shape.head_dim)
        out: NDArray[Any] = np.empty(size, target.bits)
        left = len(asked_heads) * len(asked_tokens)
        order = np.argsort(asked_tokens, kind="stable")
        ascending = [asked_tokens[at] for at in order]
        for entry in self._pages_of(role, batch, layer):
            key = entry.record.key
            first, last = bisect_left(ascending, key.start), bisect_left(ascending, key.stop)
            page_heads = self.manifest.head_sets[key.head_set]
            wanted = [at for at, head in enumerate(asked_heads) if head in page_heads]
            if first == last or not wanted:
                continue
            stack = page_of(self._reader, self._opener, entry)
            before = (layer - key.layer) * len(page_heads)
            places = [before + page_heads.index(asked_heads[at]) for at in wanted]
            rows = self._opener.rows(
                stack, places, [token - key.start for token in ascending[first:last]], target
            )
            out[np.ix_(np.asarray(wanted), order[first:last])] = rows
            left -= len(wanted) * (last - first)
        if left:
            what = f"{left} of the asked rows are lost: the container is partial"
            raise ExpectationError(PARTIAL, what)
        return out if dtype in (None, DType.BF16) else out.view(f"<f{target.size}")

    def page_places(
        self, role: Role, layer: int, batch: int = 0
    ) -> list[tuple[int, int, tuple[int, ...]]]:
        """The token range and the heads of each page of a layer, in their order."""
        keys = (entry.record.key for entry in self._pages_of(role, batch, layer))
        return [(key.start, key.stop, self.manifest.head_sets[key.head_set]) for key in keys]

    def _pages_of(self, role: Role, batch: int, layer: int) -> list[PageEntry]:
        """What the index says of pages that hold a layer, alone or with others."""
        first = self._first.get((role, batch, layer))
        return [] if first is None else self._pages[role, batch, first]

    def close(self) -> None:
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_container(path: str | Path, *, identity: Mapping[str, str] | None = None) -> Container:
    """The container in a file, its header and index checked, and of the expected identity."""
    check_keys(identity or {})
    container = Container(ByteSource.open(Path(path)))
    try:
        check_identity(container.manifest, identity or {})
    except BaseException:
        container.close()
        raise
    return container


def _numbers(asked: int | Iterable[int] | None, count: int, word: str) -> list[int]:
    """Numbers below `count`, negative ones counted from the end; UsageError out of range."""
    if asked is None:
        return list(range(count))
    numbers = [asked] if isinstance(asked, int) else list(asked)
    for number in numbers:
        if not -count <= number < count:
            raise UsageError("E101", f"{word} {number}: there are {count}")
    return [number % count for number in numbers]

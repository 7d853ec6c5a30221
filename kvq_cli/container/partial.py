"""partial: what a container lacks that was recovered from a damaged one.

Spec: formats/container.md, section "Partial containers".

Pages that are not there follow from the index; the rest is named here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from kvq_cli import digest
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.record import record


@record
class Partial:
    """Which container it was, and which of its files, tables and pieces of tensors are lost."""

    header_digest: str
    content_root: str | None  # as its footer said, if that was there
    files: tuple[int, ...] = ()
    tables: tuple[int, ...] = ()
    tensors: tuple[tuple[int, int], ...] = ()  # number, and offset of a piece

    def to_json(self) -> dict[str, Any]:
        return {
            "header_digest": self.header_digest,
            "content_root": self.content_root,
            "files": list(self.files),
            "tables": list(self.tables),
            "tensors": [list(piece) for piece in self.tensors],
        }


def read_partial(fields: Fields) -> Partial:
    tensors = []
    for piece in fields.array("tensors"):
        if not isinstance(piece, list) or [type(each) for each in piece] != [int, int]:
            fields.refuse("tensors", "a piece is [number, offset]")
        tensors.append((piece[0], piece[1]))
    partial = Partial(
        header_digest=fields.text("header_digest"),
        content_root=fields.nullable(fields.text, "content_root"),
        files=fields.integers("files", 0, U64),
        tables=fields.integers("tables", 0, U64),
        tensors=tuple(tensors),
    )
    for key in ("header_digest", "content_root"):
        told = getattr(partial, key)
        if told is not None and not digest.is_text(told):
            fields.refuse(key, "not a digest")
    fields.done()
    for key in ("files", "tables", "tensors"):
        if any(one >= other for one, other in pairwise(getattr(partial, key))):
            fields.refuse(key, "not in ascending order, all different")
    return partial

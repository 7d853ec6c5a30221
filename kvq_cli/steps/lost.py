"""lost: what a partial container lacks: in words, as JSON, and as NaN or zeros in its place.

Spec: formats/container.md, section "Partial containers".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np

from kvq_cli.capture.slab import Block, Slab
from kvq_cli.container.coverage import Gap
from kvq_cli.container.manifest import Manifest
from kvq_cli.container.records import PIECE
from kvq_cli.errors import ExpectationError
from kvq_cli.record import record
from kvq_cli.words import DType, spans

PARTIAL: Final = "E810"
QUIET_NAN: Final = {DType.F16: 0x7E00, DType.BF16: 0x7FC0, DType.F32: 0x7FC00000}
MOST: Final = 1 << 20  # bytes that are filled at once


class Fill(StrEnum):
    """What stands for rows that are not there."""

    ZERO = "zero"
    NAN = "nan"


@record
class Lost:
    """Rows, and files, tables and pieces of tensors by name."""

    rows: tuple[Gap, ...] = ()
    files: tuple[str, ...] = ()  # the headers of those with tensors, all of others
    tables: tuple[str, ...] = ()
    tensors: tuple[tuple[str, int, int], ...] = ()  # name, and a range of its bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": [_row(gap) for gap in self.rows],
            "files": list(self.files),
            "tables": list(self.tables),
            "tensors": [{"name": name, "bytes": [*span]} for name, *span in self.tensors],
        }

    def __bool__(self) -> bool:
        return any((self.rows, self.files, self.tables, self.tensors))

    def refuse(self) -> None:
        """ExpectationError E810 if anything is lost."""
        lines = told(self.to_json())
        if lines:
            more = f", and {len(lines) - 1} more like it" if lines[1:] else ""
            what = f"{lines[0]}{more}; fill it with --partial zero or nan"
            raise ExpectationError(PARTIAL, f"container is partial: it lacks {what}")


def lost_of(manifest: Manifest, gaps: Sequence[Gap]) -> Lost:
    """All that a container lacks."""
    partial = manifest.partial
    if partial is None:
        return Lost()
    names = [file.name for file in manifest.files or ()] or [""]
    pieces = [(manifest.tensors[number], at) for number, at in partial.tensors]
    return Lost(
        rows=tuple(gaps),
        files=tuple(names[number] for number in partial.files),
        tables=tuple(manifest.tables[number].digest for number in partial.tables),
        tensors=tuple((each.name, at, min(at + PIECE, each.nbytes)) for each, at in pieces),
    )


def row_bytes(manifest: Manifest) -> int:
    """Of all keys and values that the header promises, in their own dtypes."""
    return sum(
        part.batch * part.kv_heads * part.tokens * shape.head_dim * shape.dtype.size * (end - start)
        for part in manifest.parts
        for start, end in part.layers
        for shape in part.roles.values()
    )


def lost_row_bytes(manifest: Manifest, gaps: Sequence[Gap]) -> int:
    """Of those that are lost."""
    total = 0
    for gap in gaps:
        shape = manifest.parts_by_layer()[gap.layer].roles[gap.role]
        total += gap.rows * shape.head_dim * shape.dtype.size
    return total


def nan_blocks(slab: Slab, heads: Sequence[int], start: int, stop: int) -> Iterator[Block]:
    """Rows of the slab, a few at a time, that hold nothing but NaN."""
    step = max(1, MOST // (len(heads) * slab.row_size))
    for at in range(start, stop, step):
        end = min(at + step, stop)
        shape = (len(heads), end - at, slab.channels)
        yield Block(slab, heads, at, end, np.full(shape, QUIET_NAN[slab.dtype], slab.dtype.bits))


def told(lost: Mapping[str, Any]) -> list[str]:
    """A line for each thing that is lost; rows of layers that follow each other share one."""
    lines: dict[tuple[str, str], list[int]] = {}
    for row in lost["rows"]:
        heads = ",".join(f"{start}:{stop}" for start, stop in row["heads"])
        rest = f"heads {heads}, tokens {row['tokens'][0]}:{row['tokens'][1]}"
        layers = lines.setdefault((f"{row['role']}, batch {row['batch']}", rest), [])
        layers.append(row["layer"])
    return [
        *(
            f"{front}, layers {start}:{stop}, {rest}"
            for (front, rest), layers in lines.items()
            for start, stop in spans(layers)
        ),
        *(f'what file "{name}" holds besides tensors' for name in lost["files"]),
        *(f"table {name}" for name in lost["tables"]),
        *(
            f'tensor "{each["name"]}", bytes {each["bytes"][0]}:{each["bytes"][1]}'
            for each in lost["tensors"]
        ),
    ]


def _row(gap: Gap) -> dict[str, Any]:
    return {
        "role": gap.role.word,
        "batch": gap.batch,
        "layer": gap.layer,
        "heads": [list(span) for span in gap.heads],
        "tokens": [gap.start, gap.stop],
    }

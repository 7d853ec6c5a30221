"""books: codebooks of one's own: trained, written as files, and read for a profile that names one.

Spec: formats/codebooks.md, section "Files".
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import FileError, ProfileError, UsageError, reason
from kvq_cli.jsontext import loads, pointer
from kvq_cli.numerics.nearest import grid
from kvq_cli.numerics.scratch import Tables
from kvq_cli.numerics.symmetry import Symmetry
from kvq_cli.planes import table_spec

SCHEMA: Final = "kvq_codebook_v1"
LIMIT: Final = 1 << 26  # bytes of a file
LARGEST: Final = 4096  # magnitude of a coordinate
MEMBERS: Final = ("schema", "channels", "block", "size", "grid", "digest", "codewords")
PLAIN: Final = 256  # codewords up to which a codebook is better without symmetry


def make_codebook(channels: int, block: int, size: int, seed: int) -> dict[str, Any]:
    """A codebook for blocks of rows of so many channels, as its file has it."""
    from kvq_cli.steps.training import Task, train

    if not (2 <= block <= 64 and 2 <= size <= 1 << 16 and block < channels <= 640):
        raise UsageError(
            "E101", "block is 2 to 64, size 2 to 65536, channels more than block and at most 640"
        )
    if block & (block - 1) or size & (size - 1):
        raise UsageError("E101", f"block {block} and size {size} must be powers of two")
    symmetry = Symmetry(block, () if size <= PLAIN else (1,) * block)
    try:
        book = train(Task(channels, block, size, symmetry), seed=seed)
    except ValueError as error:
        raise UsageError("E101", f"no such codebook can be trained: {error}") from error
    return {
        "schema": SCHEMA,
        "channels": channels,
        "block": block,
        "size": size,
        "grid": grid(block),
        "digest": table_spec(book.codewords).digest,
        "codewords": book.codewords.tolist(),
    }


def read_codebooks(paths: Iterable[str | Path]) -> Tables:
    """The codewords of files, by digest."""
    return dict(map(_read, paths))


def _read(path: str | Path) -> tuple[str, NDArray[np.int16]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError("E601", f"cannot open {path}: {reason(error)}") from error
    try:
        codewords, stated = _checked(loads(data, limit=LIMIT))
    except ProfileError as error:
        error.args = (f"codebook {path}: {error}",)
        raise
    digest = table_spec(codewords).digest
    if stated != digest:
        found = f"codebook {path}: digest is {digest}, the file says {stated}"
        raise ProfileError("E402", found)
    return stated, codewords


def _checked(value: Any) -> tuple[NDArray[np.int16], object]:
    if not isinstance(value, dict) or set(value) != set(MEMBERS) or value["schema"] != SCHEMA:
        raise ProfileError("E401", f"no codebook: {', '.join(MEMBERS)} are expected", "")
    block, size, rows = value["block"], value["size"], value["codewords"]
    if type(block) is not int or type(size) is not int or value["grid"] != grid(block):
        raise ProfileError("E401", "block, size or grid is not possible", "")
    if not isinstance(rows, list) or len(rows) != size:
        raise ProfileError("E401", f"{size} codewords are expected", "/codewords")
    for at, row in enumerate(rows):
        right = isinstance(row, list) and len(row) == block
        if not right or any(type(each) is not int or abs(each) > LARGEST for each in row):
            found = f"{block} integers of at most {LARGEST} are expected"
            raise ProfileError("E401", found, pointer("/codewords", at))
    return np.array(rows, "<i2"), value["digest"]

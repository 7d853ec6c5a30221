"""tensors: files and tensors of a source, as a header's `content` tells them, read strictly.

Spec: formats/container.md, section "Header".
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Final

from kvq_cli import digest
from kvq_cli.container.manifest import FileEntry, Rows, TensorEntry
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.words import Role

# Each letter at most once, T and D there.
AXES: Final = re.compile(r"(?!.*(.).*\1)(?=.*T)(?=.*D)[BLRHTtuDd]+")
SPLIT: Final = re.compile(r"[BLRT]+[HtuDd]+")  # where u or d is: what is within a block comes last
MAX_LAYERS: Final = 1 << 16  # and heads
MAX_FILES: Final = 4096
MAX_NAME: Final = 512  # characters of a file's name
MAX_STEP: Final = 255  # bytes of a folder's or a file's own name


def read_files(content: Fields) -> tuple[FileEntry, ...] | None:
    if content.value("files") is None:
        return None
    files = tuple(_file(each) for each in content.objects("files"))
    if not 1 <= len(files) <= MAX_FILES:
        content.refuse("files", f"a folder has 1 to {MAX_FILES} files")
    names = [file.name for file in files]
    if any(one >= other for one, other in pairwise(names)):
        content.refuse("files", "names are in ascending order, all different")
    folders = {str(folder) for name in names for folder in PurePosixPath(name).parents}
    if not folders.isdisjoint(names):
        content.refuse("files", "a file has the name of a folder")
    return files


def _file(fields: Fields) -> FileEntry:
    file = FileEntry(fields.text("name"), read_digest(fields, "digest"))
    fields.done()
    steps = file.name.split("/")
    known = len(file.name) <= MAX_NAME and file.name.isprintable() and "\\" not in file.name
    if not known or any(step in ("", ".", "..") or len(step.encode()) > MAX_STEP for step in steps):
        fields.refuse("name", "not the name of a file inside a folder")
    return file


def read_tensor(fields: Fields) -> TensorEntry:
    rows = fields.nullable(fields.object, "rows")
    tensor = TensorEntry(
        file=fields.integer("file", 0, MAX_FILES),
        name=fields.text("name"),
        dtype=fields.text("dtype"),
        shape=fields.integers("shape", 0, U64),
        nbytes=fields.integer("nbytes", 0, 1 << 50),
        rows=None if rows is None else _rows(rows),
    )
    fields.done()
    return tensor


def _rows(fields: Fields) -> Rows:
    words = fields.texts("roles")
    if tuple(words) not in (("key",), ("value",), ("key", "value")):
        fields.refuse("roles", "roles are key, value, or both in this order")
    lengths = fields.object("lengths")
    rows = Rows(
        roles=tuple(Role[word.upper()] for word in words),
        axes=fields.text("axes"),
        lengths={letter: lengths.integer(letter, 1, 1 << 40) for letter in fields.value("lengths")},
        first_layer=fields.integer("first_layer", 0, MAX_LAYERS),
        first_head=fields.integer("first_head", 0, MAX_LAYERS),
        tokens=fields.integer("tokens", 1, 1 << 40),
    )
    fields.done()
    _check_axes(fields, rows)
    return rows


def _check_axes(fields: Fields, rows: Rows) -> None:
    """Letters of one order, or of two that agree up to R."""
    orders = rows.axes.split(",")
    first, last = orders[0], orders[-1]
    both = len(rows.roles) == len(Role)
    if not all(AXES.fullmatch(order) for order in orders) or len(orders) > len(rows.roles):
        fields.refuse("axes", "axes are letters of BLRHTtuDd, T and D among them, one each")
    if {*"ud"} & {*first} and not all(SPLIT.fullmatch(order) for order in orders):
        fields.refuse("axes", "where u or d is, H, t, u, D and d come last")
    if {*rows.lengths} != {*first} or {*first} != {*last}:
        fields.refuse("lengths", "each letter of the axes has a length, and no other")
    if ("R" in first) != both or rows.length("R") != len(rows.roles):
        fields.refuse("axes", "R stands where there are keys and values, and has the length 2")
    shared = first.index("R") + 1 if both else 0
    if first[:shared] != last[:shared]:
        fields.refuse("axes", "the orders of keys and values agree up to R")
    if rows.tokens > rows.room:
        fields.refuse("tokens", "more tokens than the tensor has room for")


def read_digest(fields: Fields, key: str) -> str | None:
    text = fields.nullable(fields.text, key)
    if text is not None and not digest.is_text(text):
        fields.refuse(key, "not a digest")
    return text

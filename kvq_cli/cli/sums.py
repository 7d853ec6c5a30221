"""sums: lines of content_root and file name, as `sha256sum` writes and checks them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from kvq_cli.digest import is_text
from kvq_cli.errors import UsageError

MAX_BYTES: Final = 1 << 24


def sum_line(content_root: str, name: str) -> str:
    return f"{content_root}  {name}"


def read_sums(path: str) -> Iterator[tuple[str, str]]:
    """Name and content_root of each line."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        raw = file.read(MAX_BYTES)
    for number, line in enumerate(raw.splitlines(), start=1):
        root, separator, name = os.fsdecode(line).partition("  ")
        if line and not (separator and name and is_text(root)):
            raise UsageError("E101", f"{path}, line {number}: content_root, two spaces, name")
        if line:
            yield name, root

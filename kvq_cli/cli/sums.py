"""sums: lines of content_root and file name, as `sha256sum` writes and checks them.

A line whose name holds a backslash or what cannot be printed begins with a backslash, and the
name is escaped as Python escapes it; `sha256sum` does the same for line ends.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from kvq_cli.cli.render import safe
from kvq_cli.digest import is_text
from kvq_cli.errors import UsageError

MAX_BYTES: Final = 1 << 24
SIMPLE: Final = {"\\\\": "\\", "\\n": "\n", "\\r": "\r", "\\t": "\t"}
ESCAPE: Final = re.compile(r"\\(?:[\\nrt]|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")


def sum_line(content_root: str, name: str) -> str:
    escaped = safe(name.replace("\\", "\\\\"))
    return f"{'' if escaped == name else chr(92)}{content_root}  {escaped}"


def read_sums(path: str) -> Iterator[tuple[str, str]]:
    """Name and content_root of each line."""
    with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
        raw = file.read(MAX_BYTES + 1)
    if len(raw) > MAX_BYTES:
        raise UsageError("E101", f"{path}: more than {MAX_BYTES} bytes of sums")
    for number, line in enumerate(raw.split(b"\n"), start=1):
        text = os.fsdecode(line).removesuffix("\r")
        escaped = text.startswith("\\")
        root, separator, name = text.removeprefix("\\").partition("  ")
        if text and not (separator and name and is_text(root)):
            raise UsageError("E101", f"{path}, line {number}: content_root, two spaces, name")
        if text:
            yield (ESCAPE.sub(_plain, name) if escaped else name), root


def _plain(escape: re.Match[str]) -> str:
    text = escape[0]
    return SIMPLE[text] if text in SIMPLE else chr(int(text.lstrip("\\xuU"), base=16))

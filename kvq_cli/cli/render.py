"""render: reports for people: plain text, columns, and Rich only on a terminal."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any, Final, TextIO

from kvq_cli.cli.options import Color, Common

PATIENCE: Final = 1.0  # seconds before a progress bar appears
# Controls, formats, surrogates, private and unassigned characters, line separators.
UNSAFE: Final = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


def safe(text: str) -> str:
    """Text on one line without control, format or bidirectional characters."""
    return "".join(_escaped(each) if _unsafe(each) else each for each in text)


def _unsafe(character: str) -> bool:
    return unicodedata.category(character) in UNSAFE


def size(count: float) -> str:
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count /= 1024
        unit += 1
    return f"{count:.0f} {UNITS[unit]}" if unit == 0 else f"{count:.1f} {UNITS[unit]}"


def say(text: str, *, err: bool = False) -> None:
    print(safe(text), file=sys.stderr if err else sys.stdout)


def line(value: Any, stream: TextIO) -> None:
    """A JSON value on one line; ASCII, so that no terminal is fooled."""
    print(json.dumps(value), file=stream)


def table(
    common: Common, header: Sequence[str], rows: Sequence[Sequence[object]], *, err: bool = False
) -> None:
    """Columns; drawn by Rich where a person looks, plain where a program reads."""
    cells = [[safe(str(cell)) for cell in row] for row in rows]
    stream = sys.stderr if err else sys.stdout
    if _colored(common, stream):
        _rich_table(common, header, cells, stream)
        return
    widths = [max(len(row[at]) for row in [list(header), *cells]) for at in range(len(header))]
    for row in [list(header), *cells]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(),
            file=stream,
        )


def _colored(common: Common, stream: TextIO) -> bool:
    if common.color is not Color.AUTO:
        return common.color is Color.ALWAYS
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def _rich_table(
    common: Common, header: Sequence[str], cells: list[list[str]], stream: TextIO
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=None, header_style="bold", pad_edge=False)
    for word in header:
        drawn.add_column(word)
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    Console(file=stream, force_terminal=common.color is Color.ALWAYS or None).print(drawn)


def progress(common: Common, label: str) -> Callable[[int, int], None]:
    """A bar on standard error once work takes long, where a person may see it."""
    return _Bar(label) if _live(common) else lambda done, total: None


def end_progress(common: Common, begin: float) -> None:
    """Leave an empty line where a bar may stand since `begin`."""
    if _live(common) and time.monotonic() - begin >= PATIENCE:
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()


def _live(common: Common) -> bool:
    wanted = common.progress and not common.quiet
    return wanted and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _Bar:
    """One line, rewritten: part done, bytes, speed, time left."""

    def __init__(self, label: str) -> None:
        self._label = safe(os.path.basename(label))[:40]
        self._begin = self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._begin < PATIENCE or now - self._last < 0.2:
            return
        self._last = now
        speed = done / (now - self._begin)
        text = f"{self._label}: {size(done)}, {speed / 1e6:.0f} MB/s"
        if total:
            left = max(0.0, (total - done) / speed) if speed else 0.0
            text = f"{text}, {min(100, 100 * done // total)} %, {left:.0f} s left"
        width = shutil.get_terminal_size().columns - 1
        sys.stderr.write(f"\r\x1b[K{text[:width]}")
        sys.stderr.flush()


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()

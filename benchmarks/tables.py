"""tables: results as plain text, a column a member."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

# Members that a reader of a terminal does without; the file has them.
HIDDEN: Final = ("note", "encode_least_ns", "decode_least_ns", "encode_jobs", "decode_jobs")


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Columns under their names, those of all rows in the order in which they turn up."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row)
             if name not in HIDDEN]  # fmt: skip
    if not names:
        return "nothing to show"
    cells = [names, *([_text(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(names))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def show(parts: Mapping[str, Any]) -> None:
    """Every table of these parts, each under a line that says what it is."""
    for name, part in parts.items():
        if name == "schema":
            continue
        made = part["made"]
        print(f"\n{name}: {made['processor']}, {made['processors']} processors, {made['date']}")
        for title in ("rows", "transform"):
            if part.get(title):
                print(table(part[title]), flush=True)
        for each in part.get("captures", ()):
            about = [f"{k} {v}" for k, v in each.items() if not isinstance(v, (list, dict))]
            print(f"\n{', '.join(about)}")
            for title, rows in each.items():
                if isinstance(rows, list) and rows and isinstance(rows[0], dict):
                    print(f"\n{title}\n{table(rows)}", flush=True)

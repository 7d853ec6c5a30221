"""html: the report of `stats --html`: one page that needs nothing else.

Everything is inline: no script, no picture, no address is loaded, and a policy in the page says
so. Colours follow the reader's light or dark setting; tables scroll on a narrow screen. Text from
files is escaped. Figures are those of the JSON report, written the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from kvq_cli import __version__
from kvq_cli.cli import charts, render
from kvq_cli.cli.measured import sample_line

Report = Mapping[str, Any]

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fff; --line: #dde3ea;
  --heat: #b3261e; --c0: #2f6fb2; --c1: #d98324; --c2: #3f8f5b; --c3: #8a5aa8; --c4: #b8464e;
  --c5: #5f7f8f; --c6: #9a8130; --c7: #4f9aa8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5eaf0; --soft: #9aa6b4; --paper: #14181e;
  --line: #2c343e; --heat: #ff8a80; --c0: #6ea8e0; --c1: #f0a95a; --c2: #74c290; --c3: #bd93d8; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  margin: 0 auto; padding: 1rem; max-width: 62rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.15rem; border-top: 1px solid var(--line);
  padding-top: 1rem; margin-top: 2rem; overflow-wrap: anywhere; } h3 { font-size: 1rem; }
p, figcaption { color: var(--soft); } figure { margin: 1rem 0; overflow-x: auto; }
.wide { overflow-x: auto; margin-bottom: 1rem; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .2rem .9rem .2rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-variant-numeric: tabular-nums; } th { color: var(--soft); }
code { overflow-wrap: anywhere; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
@media print { h2 { break-before: page; } body { max-width: none; } }
"""
POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
HEATS: Final = (
    ("errors", "key", "relative_mse", "Keys: relative MSE of each layer and kv head"),
    ("errors", "value", "relative_mse", "Values: relative MSE of each layer and kv head"),
    ("attention", None, "attention_tv", "Attention: total variation of each layer and query head"),
)


def page(reports: Sequence[Report]) -> str:
    """The whole page."""
    title = "kvq stats" if len(reports) != 1 else f"kvq stats: {reports[0]['path']}"
    body = [f"<h1>{_text(title)}</h1>", f"<p>kvq {__version__}; sizes are measured on files.</p>"]
    if len(reports) > 1:
        body += _compared(reports)
    for report in reports:
        body += _section(report)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _compared(reports: Sequence[Report]) -> Iterator[str]:
    """Rate and distortion of every profile, drawn and told."""
    measured = all(report["attention"] for report in reports)
    what = "attention total variation" if measured else "relative MSE of keys"
    points = [
        (_names(report), report["bits_per_element"], _distortion(report, measured=measured))
        for report in reports
    ]
    yield "<h3>Rate and distortion</h3>"
    yield _figure(charts.scatter(points, "bits per element", what), f"{what}, by bits per element")
    yield _table(
        ("profile", "ratio", "bits per element", what),
        [
            (name, report["ratio"], bits, distortion)
            for report, (name, bits, distortion) in zip(reports, points, strict=True)
        ],
    )


def _section(report: Report) -> Iterator[str]:
    yield f"<h2>{_text(report['path'])}: {_text(_names(report))}</h2>"
    yield _table(
        ("figure", "value"),
        [
            ("ratio", f"{report['ratio']} vs {report['ratio_against']}"),
            ("bits per element", report["bits_per_element"]),
            *([("sample", sample_line(report["sample"]))] if report["sample"] else []),
            ("source", _bytes(report["source_bytes"])),
            ("file", _bytes(report["file_bytes"])),
            ("content root", report["content_root"]),
            *(
                (f"{'+'.join(each['roles'])} profile", each["digest"])
                for each in report["profiles"]
            ),
        ],
    )
    parts = [(name, count) for name, count in report["parts"].items() if count]
    yield "<h3>Where the bytes are</h3>"
    planes = [(each["name"], each["stored"]) for each in report["planes"] if each["stored"]]
    rest = [(name, count) for name, count in parts if name != "pages"]
    yield _figure(charts.stacked([*planes, *rest]), "planes, and what is no plane, of the file")
    yield _table(("part", "bytes"), parts)
    stored = [(each["name"], each["packed"], each["stored"]) for each in report["planes"]]
    yield _table(("plane", "packed", "stored"), stored)
    if report["raw_pages"]:
        yield "<h3>Pages that stayed raw</h3>"
        yield _table(("reason", "pages"), list(report["raw_pages"].items()))
    yield from _errors(report)
    for note in report["notes"]:
        yield f"<p>{_text(note)}</p>"


def _errors(report: Report) -> Iterator[str]:
    """The whole as tables, layers and heads as heat maps."""
    for rows, title in ((report["errors"], "Errors"), (report["attention"], "Attention")):
        whole = [row for row in rows if row["layer"] is None]
        if whole:
            names = [name for name in whole[0] if name not in ("layer", "head")]
            yield f"<h3>{title}</h3>"
            yield _table(names, [[row[name] for name in names] for row in whole])
    for part, role, metric, caption in HEATS:
        cells = {
            (row["layer"], row["head"]): row[metric]
            for row in report[part]
            if row["head"] is not None and row.get("role") == role and row[metric] is not None
        }
        if cells:
            yield _figure(charts.heat(cells), caption)


def _distortion(report: Report, *, measured: bool) -> float | None:
    if measured:
        found: float | None = report["attention"][-1]["attention_tv"]
        return found
    keys = (row for row in report["errors"] if row["layer"] is None and row["role"] == "key")
    return next((row["relative_mse"] for row in keys), None)


def _names(report: Report) -> str:
    return "+".join(each["name"] for each in report["profiles"])


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(header: Iterable[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in header)
    lines = "".join(
        "<tr>" + "".join(f"<td>{_text(_told(cell))}</td>" for cell in row) + "</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _told(cell: object) -> str:
    return "-" if cell is None else str(cell)


def _bytes(count: int) -> str:
    return f"{count} ({render.size(count)})"


def _text(text: str) -> str:
    return escape(render.safe(text))

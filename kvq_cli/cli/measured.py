"""measured: what `stats` prints of containers: parts, planes, errors, attention.

One container is told at length, several profiles of a capture a line each, side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kvq_cli.cli import options, render

COMPARED = (
    "input", "profile", "ratio", "bits/element", "keys mse", "values mse", "tv", "worst tv",
    "worst cosine", "raw pages",
)  # fmt: skip
PROBES = {"capture": "the capture's", "file": "the file's", "self": "the last keys of each head"}
SHADES = " .:-=+*#%@"
METRICS = ("relative_mse", "snr_db", "cosine", "max_error", "mae")
ATTENTION = (
    "attention_tv", "attention_kl", "topk_disagreement", "logit_mse", "value_aggregation_mse",
    "attention_cosine",
)  # fmt: skip
CSV_COLUMNS = (
    "path", "role", "layer", "head", *METRICS, "mse", "elements", "non_finite", "queries",
    *ATTENTION,
)  # fmt: skip


def side_by_side(reports: Sequence[Mapping[str, Any]], common: options.Common) -> None:
    """One line for each input and profile; of attention the mean and the worst head."""
    rows = []
    for report in reports:
        errors = {row["role"]: row for row in report["errors"] if row["layer"] is None}
        heads = [row for row in report["attention"] if row["head"] is not None]
        whole = report["attention"][-1] if heads else {}
        worst = max((row["attention_tv"] for row in heads), default=None)
        cosines = [row["attention_cosine"] for row in heads if row["attention_cosine"] is not None]
        told = [
            report["path"],
            "+".join(each["name"] for each in report["profiles"]),
            f"{report['ratio']:.3f}",
            report["bits_per_element"],
            *(errors.get(role, {}).get("relative_mse") for role in ("key", "value")),
            whole.get("attention_tv"),
            worst,
            min(cosines, default=None),
            sum(report["raw_pages"].values()),
        ]
        rows.append([_told(each, "-") for each in told])
    render.table(common, COMPARED, rows)
    for line in dict.fromkeys(sample_line(each["sample"]) for each in reports if each["sample"]):
        render.say(f"sample: {line}")
    for note in dict.fromkeys(note for report in reports for note in report["notes"]):
        render.say(f"note: {note}")


def sample_line(told: Mapping[str, int]) -> str:
    return (
        f"{told['layers']} of {told['of_layers']} layers, {told['tokens']} of "
        f"{told['of_tokens']} tokens; all figures are those of the sample"
    )


def tell(report: Mapping[str, Any], common: options.Common) -> None:
    bits = report["bits_per_element"]
    render.say(
        f"{report['path']}: {render.size(report['source_bytes'])} of tensors in "
        f"{render.size(report['file_bytes'])}, ratio {report['ratio']:.3f} vs "
        f"{report['ratio_against']}" + (f", {bits:.3f} bits per element" if bits else "")
    )
    whole = report["file_bytes"]
    if report["sample"]:
        render.say(f"sample: {sample_line(report['sample'])}")
    rows = [
        [part, count, f"{count / whole:.2%}", _bar(count / whole)]
        for part, count in report["parts"].items()
    ]
    render.table(common, ("part", "bytes", "of file", ""), [*rows, ["file", whole, "100.00%", ""]])
    rows = [
        [each["name"], each["packed"], each["stored"], f"{_part(each):.2%}"]
        for each in report["planes"]
    ]
    render.table(common, ("plane", "packed", "stored", "of packed"), rows)
    for reason, count in report["raw_pages"].items():
        render.say(f"raw pages: {count} {reason}")
    for note in report["notes"]:
        render.say(f"note: {note}")
    _rows(report["errors"], ("role", "layer", "head"), METRICS, common)
    if report["probe"]:
        render.say(f"attention, queries: {PROBES[report['probe']['kind']]}")
    _rows(report["attention"], ("layer", "head", "queries"), ATTENTION, common)
    if common.verbose:
        for role in ("key", "value"):
            heads = [row for row in report["errors"] if row["role"] == role]
            _heat(heads, "relative_mse", f"{role}s, relative_mse, kv heads")
        _heat(report["attention"], "attention_tv", "attention_tv, query heads")


def _rows(
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    metrics: Sequence[str],
    common: options.Common,
) -> None:
    """The rows over everything; with --verbose those of layers and heads too."""
    cells = [
        [*(_told(row[key], "all") for key in keys), *(_told(row[name], "-") for name in metrics)]
        for row in rows
        if common.verbose or row["layer"] is None
    ]
    if cells:
        render.table(common, (*keys, *metrics), cells)


def _bar(part: float) -> str:
    """A part of the whole, to a twentieth; something for the least."""
    return "#" * max(round(20 * part), part > 0)


def _heat(rows: Sequence[Mapping[str, Any]], metric: str, title: str) -> None:
    """A line a layer, a letter a head; each darker letter is twice the error, at least."""
    heads = [row for row in rows if row["head"] is not None and row[metric]]
    if not heads:
        return
    most = max(row[metric] for row in heads)
    span = max(math.log2(most / min(row[metric] for row in heads)), len(SHADES) - 2.0)
    lines: dict[int, dict[int, str]] = {}
    for row in (row for row in rows if row["head"] is not None):
        level = 1 + math.log2(row[metric] / most) / span if row[metric] else 0.0
        at = 1 + round(level * (len(SHADES) - 2)) if row[metric] else 0
        lines.setdefault(row["layer"], {})[row["head"]] = SHADES[at]
    render.say(f"{title} across, layers down; {SHADES[-1]} is {most:.3g}")
    for layer, shades in sorted(lines.items()):
        line = "".join(shades.get(head, " ") for head in range(max(shades) + 1))
        render.say(f"{layer:5} {line}")


def _told(value: object, missing: str) -> object:
    return missing if value is None else value


def _part(plane: Mapping[str, Any]) -> float:
    return plane["stored"] / plane["packed"] if plane["packed"] else 1.0


def csv_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of errors, and of attention with the role `query`."""
    path = render.safe(report["path"])
    asked = ({"role": "query", **row} for row in report["attention"])
    return [{"path": path, **row} for row in (*report["errors"], *asked)]

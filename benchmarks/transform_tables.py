"""transform_tables: results of benchmarks/transform.py as Markdown; nothing is measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

Row: TypeAlias = Mapping[str, Any]
ROWS: Final = (
    "codec", "bits/element", "ratio vs 16 bits", "ratio, table in the file", "attention TV",
    "cosine of outputs",
)  # fmt: skip
VERDICTS: Final = (
    "no worse than", "calibration", "step", "bits/element", "ratio vs 16 bits",
    "ratio, table in the file", "times smaller",
)  # fmt: skip
ABLATION: Final = (
    "part", "variant", "capture", "tokens of calibration", "dimensions of a group",
    "bits/element", "attention TV", "cosine of outputs", "bits when as good",
)  # fmt: skip


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rows(part: Row) -> str:
    """Each codec at each of its rates."""
    return markdown(ROWS, [_cells(each) for each in part["rows"]])


def _cells(row: Row) -> list[str]:
    name = _named(row["codec"])
    if "step" in row:
        name = f"{name}, {row['calibration']}, step {row['step']}"
    inside = f"{row['embedded_ratio']:.3f}" if "embedded_ratio" in row else ""
    figures = [f"{row['bits']:.3f}", f"{row['ratio']:.3f}", inside]
    return [name, *figures, f"{row['tv']:.4f}", f"{row['cosine']:.5f}"]


def verdicts(part: Row) -> str:
    """How small transform is where it is as good as another codec."""
    cells = [
        [_named(row["against"]), row["calibration"], str(row["step"]), f"{row['bits']:.3f}",
         f"{row['ratio']:.3f}", f"{row['embedded_ratio']:.3f}", f"{row['factor']:.2f}"]
        for row in part["verdicts"]
    ]  # fmt: skip
    return markdown(VERDICTS, cells)


def _named(codec: str) -> str:
    return codec if " " in codec else f"`{codec}`"


def calibrations(parts: Sequence[Row]) -> str:
    """What a container with the table holds of each, and how the file is known."""
    found = {name: each for part in parts for name, each in part["calibrations"].items()}
    cells = [[f"`{name}.kvqcal`", f"{each['file_bytes']:,}", f"{each['table_bytes']:,}",
              f"{each['tokens']:,}", f"`{each['digest']}`"]
             for name, each in found.items()]  # fmt: skip
    header = ["calibration", "bytes of the file", "bytes of its table", "tokens", "digest"]
    return markdown(header, cells)


def speed(part: Row) -> str:
    """One thread; A is a cast of as many F16 elements to float32 in the same round."""
    cells = [
        [row["role"], f"{row['bits']:.2f}", f"{row['encode_ns']:.1f}", f"{row['decode_ns']:.1f}",
         f"{row['encode_mb_s']}", f"{row['decode_mb_s']}", f"{row['encode_per_cast']:.1f}",
         f"{row['decode_per_cast']:.1f}", f"{row['encode_per_copy']:.0f}",
         f"{row['decode_per_copy']:.0f}"]
        for row in part["rows"]
    ]  # fmt: skip
    header = ["role", "bits/element"]
    for unit in ("ns an element", "MB/s of F16", "in A", "in copies"):
        header += [f"{way}, {unit}" for way in ("encode", "decode")]
    return markdown(header, cells)


def ablation(part: Row) -> str:
    """Each variant, by its part."""
    order = list(dict.fromkeys(row["part"] for row in part["rows"]))
    cells = [
        [row["part"], row["variant"], row["capture"], f"{row['tokens']:,}", str(row["dimensions"]),
         f"{row['bits']:.3f}", f"{row['tv']:.4f}", f"{row['cosine']:.5f}",
         "none" if row["equal_bits"] is None else f"{row['equal_bits']:.3f}"]
        for row in sorted(part["rows"], key=lambda row: order.index(row["part"]))
    ]  # fmt: skip
    return markdown(ABLATION, cells)

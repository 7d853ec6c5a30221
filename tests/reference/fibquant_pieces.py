"""fibquant_pieces: the coefficients of `formats/fibquant-compat.md`, read off the page itself."""

from __future__ import annotations

import re
from pathlib import Path

MINUS = "\N{MINUS SIGN}"
PAGE = (
    (Path(__file__).parents[2] / "formats" / "fibquant-compat.md").read_text().replace(MINUS, "-")
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e-\d+)?")


def numbers(text: str) -> list[float]:
    return [float(each) for each in NUMBER.findall(text)]


def row(name: str, number: int) -> list[str]:
    """The cells of the first or second row that begins with this name."""
    rows = [line.split("|")[2:-1] for line in PAGE.splitlines() if line.startswith(f"| {name} |")]
    return rows[number]


LANCZOS = numbers(PAGE.split("coefficients p₀..p₁₀:")[1].split("```")[1])
# name: (y, coefficients of n, coefficients of m)
PIECES = {
    name: (numbers(row(name, 0)[1].split("y = ")[1])[0], *map(numbers, row(name, 1)))
    for name in "ABCD"
}

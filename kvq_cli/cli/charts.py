"""charts: the drawings of a page, as SVG text: a stacked bar, a scatter plot, a heat map.

Colours are variables of the page. A heat map paints all cells of one shade with one path, so that
5,120 cells take 60 KB.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDE: Final = 640
COLOURS: Final = 8
SHADES: Final = 12
CELL: Final = 9
LEFT, TOP = 34, 14  # of a heat map: room for numbers


def stacked(parts: Sequence[tuple[str, int]]) -> str:
    """Parts of a whole, side by side, and their names below."""
    whole = sum(count for _, count in parts) or 1
    drawn, at = [], 0.0
    for number, (name, count) in enumerate(parts):
        width = WIDE * count / whole
        fill = f"var(--c{number % COLOURS})"
        drawn.append(f'<rect x="{at:.2f}" y="0" width="{width:.2f}" height="26" fill="{fill}"/>')
        x, y = 160 * (number % 4), 40 + 18 * (number // 4)
        label = escape(f"{name} {count / whole:.2%}")
        drawn.append(f'<rect x="{x}" y="{y}" width="10" height="10" fill="{fill}"/>')
        drawn.append(f'<text x="{x + 15}" y="{y + 9}">{label}</text>')
        at += width
    return _svg(WIDE, 44 + 18 * -(-len(parts) // 4), drawn)


def scatter(points: Sequence[tuple[str, float | None, float | None]], across: str, up: str) -> str:
    """Numbered points, and their names below.

    Upwards the scale is logarithmic, and what is 0 lies at its foot.
    """
    known = [(name, x, y) for name, x, y in points if x is not None and y is not None]
    least = min((y for _, _, y in known if y > 0), default=1e-3)
    most = max((y for _, _, y in known if y > 0), default=1.0)
    low, high = math.floor(math.log10(least)), max(math.ceil(math.log10(most)), 1 - 9)
    high = max(high, low + 1)
    right = max((x for _, x, _ in known), default=1.0) * 1.15

    def place(x: float, y: float) -> tuple[float, float]:
        level = (math.log10(y) - low) / (high - low) if y > 0 else 0.0
        return 60 + (WIDE - 80) * x / right, 300 - 270 * level

    drawn = [f'<path d="M60 20V300H{WIDE - 10}" fill="none" stroke="var(--line)"/>']
    for power in range(low, high + 1):
        _, y = place(0, 10.0**power)
        drawn.append(f'<path d="M60 {y:.1f}H{WIDE - 10}" stroke="var(--line)"/>')
        drawn.append(f'<text x="52" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for bits in range(0, int(right) + 1, max(1, int(right) // 8)):
        x, _ = place(bits, 1)
        drawn.append(f'<text x="{x:.1f}" y="316" text-anchor="middle">{bits}</text>')
    drawn.append(f'<text x="{WIDE - 10}" y="334" text-anchor="end">{escape(across)}</text>')
    drawn.append(f'<text x="60" y="12">{escape(up)}</text>')
    placed = sorted((x, y, name) for name, x, y in known)
    for number, (bits_of, loss, name) in enumerate(placed):
        x, y = place(bits_of, loss)
        drawn += _numbered(number, x, y)
        left, top = 60 + 145 * (number % 4), 356 + 20 * (number // 4)
        drawn += _numbered(number, left, top)
        drawn.append(f'<text x="{left + 12}" y="{top + 4}">{escape(name)}</text>')
    return _svg(WIDE, 350 + 20 * -(-len(placed) // 4), drawn)


def _numbered(number: int, x: float, y: float) -> list[str]:
    """A dot with its number in it."""
    fill = f"var(--c{number % COLOURS})"
    style = "fill:var(--paper);font-size:9px"
    place = f'x="{x:.1f}" y="{y + 3.5:.1f}" text-anchor="middle" style="{style}"'
    return [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="{fill}"/>',
        f"<text {place}>{number + 1}</text>",
    ]


def heat(cells: Mapping[tuple[int, int], float]) -> str:
    """Layers downwards, heads across; the darker, the larger, on a logarithmic scale."""
    layers = sorted({layer for layer, _ in cells})
    heads = 1 + max(head for _, head in cells)
    positive = [value for value in cells.values() if value > 0]
    low, high = min(positive, default=1.0), max(positive, default=1.0)
    span = math.log(high / low) or 1.0
    shades: dict[int, list[str]] = defaultdict(list)
    rows = {layer: at for at, layer in enumerate(layers)}
    for (layer, head), value in cells.items():
        level = math.log(value / low) / span if value > 0 else -1.0
        shade = 0 if level < 0 else 1 + round(level * (SHADES - 1))
        x, y = LEFT + CELL * head, TOP + CELL * rows[layer]
        shades[shade].append(f"M{x} {y}h{CELL - 1}v{CELL - 1}h{1 - CELL}z")
    drawn = [
        f'<path d="{"".join(each)}" fill="var(--heat)" '
        f'fill-opacity="{0.04 + 0.96 * shade / SHADES:.3f}"/>'
        for shade, each in sorted(shades.items())
    ]
    for layer in layers[:: max(1, len(layers) // 12)]:
        y = TOP + CELL * rows[layer] + CELL - 1
        drawn.append(f'<text x="{LEFT - 6}" y="{y}" text-anchor="end">{layer}</text>')
    drawn += [
        f'<text x="{LEFT + CELL * head}" y="10">{head}</text>'
        for head in range(0, heads, max(2, heads // 8))
    ]
    height = TOP + CELL * len(layers) + 18
    drawn.append(f'<text x="{LEFT}" y="{height - 4}">{low:.3g} (light) to {high:.3g} (dark)</text>')
    return _svg(max(LEFT + CELL * heads + 10, 240), height, drawn)


def _svg(width: float, height: float, drawn: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img">{"".join(drawn)}</svg>'

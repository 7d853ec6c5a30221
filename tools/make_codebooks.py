"""make_codebooks: the only writer of formats/codebooks/ and of its copy in the package.

    python tools/make_codebooks.py               train and write all, in half an hour
    python tools/make_codebooks.py --only 4-256  those of one file
    python tools/make_codebooks.py --quick       a start that is good enough to try things
    python tools/make_codebooks.py --measure     print the table of formats/codebooks.md

Bases are searched for rows of 128 channels, where several climbs begin. The best of them are
then trained for each number of channels, on blocks of its own law; which one is kept is decided
on blocks that none was trained on, and measured on others again.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from kvq_cli.codecs.codebooks import CHANNELS, FOLDER, SIZES, Codebook, codebook
from kvq_cli.numerics.nearest import grid
from kvq_cli.numerics.symmetry import Symmetry, folded
from kvq_cli.steps.orbits import mirror
from kvq_cli.steps.training import Bases, Task, climb, lloyd, measured, rounded

FORMATS: Final = Path(__file__).parents[1] / "formats" / "codebooks"
SEARCHED: Final = 128  # channels of the rows that bases are searched for
KEPT: Final = 3  # climbs whose bases are trained for every number of channels
TRAINING, CHOICE, MEASURE = 1000, 2000, 3000  # seeds: no block is used for two of these
HELD_OUT: Final = 400_000


@dataclass(frozen=True)
class Plan:
    """How the codebooks of one file are made."""

    runs: tuple[int, ...]
    blocks: int  # of a climb
    turns: int
    core: Callable[[Task], Bases] | None = None
    climbs: int = 2
    trained: int = 500_000  # blocks, or 400 for a codeword, for each D


def roots(task: Task) -> Bases:
    """The 240 roots of E8, in the frame where changes of sign keep them: axes and fours.

    The fours are the words of weight 4 of the extended Hamming code.
    """
    words = [
        word
        for word in itertools.product((0, 1), repeat=8)
        if sum(word) == 4 and not any(_parity(word, check) for check in HAMMING)
    ]
    rows = [*np.array(words) / 2, *np.eye(8)]
    points = (np.array(rows) * 2.4).astype(np.float32)
    return Bases(points, np.array([mirror(task.symmetry, row) for row in points]))


HAMMING: Final = ((1,) * 8, (0, 1) * 4, (0, 0, 1, 1) * 2, (0, 0, 0, 0, 1, 1, 1, 1))


def _parity(word: tuple[int, ...], check: tuple[int, ...]) -> int:
    return int(np.dot(word, check)) % 2


OCTACODE: Final = (
    (1, 0, 0, 0, 3, 1, 2, 1),
    (0, 1, 0, 0, 1, 2, 3, 1),
    (0, 0, 1, 0, 3, 3, 3, 2),
    (0, 0, 0, 1, 2, 3, 1, 1),
)
GRAY: Final = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]])


def nordstrom_robinson(_task: Task) -> Bases:
    """256 words of 16 signs, any two different in 6 or more: the octacode through Gray's map.

    Words keep their directions; only how long they are, all alike, is trained.
    """
    words = np.array(list(itertools.product(range(4), repeat=4))) @ np.array(OCTACODE) % 4
    points = (GRAY[words].reshape(256, 16) * 0.625).astype(np.float32)
    lengths = (points * points).sum(axis=1)
    return Bases(points, np.einsum("bi,bj->bij", points, points) / lengths[:, None, None])


PLANS: Final = {
    (2, 64): Plan((), 200_000, 120, climbs=4, trained=1_000_000),
    (2, 256): Plan((1, 1), 60_000, 400, climbs=4, trained=1_000_000),
    (4, 32): Plan((), 200_000, 80),
    (4, 256): Plan((1, 1, 1, 1), 60_000, 500),
    (4, 1024): Plan((2, 2), 100_000, 350, climbs=5),
    (4, 4096): Plan((4,), 150_000, 300),
    (8, 256): Plan((1,) * 8, 60_000, 300, roots),
    (16, 256): Plan((), 1, 0, nordstrom_robinson),
}


def starts(plan: Plan, block: int, size: int, *, quick: bool) -> list[Bases]:
    """The best bases of several climbs."""
    task = Task(SEARCHED, block, size, Symmetry(block, plan.runs))
    if not plan.turns and plan.core:
        return [plan.core(task)]
    core = plan.core(task) if plan.core else None
    found = []
    for seed in range(1 if quick else plan.climbs):
        turns = plan.turns // 8 if quick else plan.turns
        found.append(climb(task, core, count=plan.blocks, turns=turns, seed=seed))
        print(f"  climb {seed}: {found[-1][0]:.5f}, {len(found[-1][1].points)} bases", flush=True)
    return [bases for _, bases in sorted(found, key=lambda each: each[0])[:KEPT]]


def trained(task: Task, begun: list[Bases], *, quick: bool) -> Codebook:
    """The best codebook that comes of these bases."""
    plan = PLANS[task.block, task.size]
    count = 100_000 if quick else max(plan.trained, 400 * task.size)
    blocks, others = task.folded(count, TRAINING), task.blocks(count, CHOICE)
    ended = [lloyd(blocks, bases, 10 if quick else 60) for bases in begun]
    if not plan.turns:
        ended = [alike(bases) for bases in ended]
    books = [Codebook.of(rounded(task, bases)) for bases in ended]
    return min(books, key=lambda book: measured(book, others))


def alike(bases: Bases) -> Bases:
    """The same directions, all of the mean length."""
    lengths = np.linalg.norm(bases.points, axis=1, keepdims=True)
    return Bases(bases.points / lengths * lengths.mean(), bases.mirrors)


def stored(block: int, size: int, *, quick: bool) -> dict[str, Any]:
    """The content of a file."""
    plan = PLANS[block, size]
    begun = starts(plan, block, size, quick=quick)
    books = {}
    for channels in CHANNELS:
        task = Task(channels, block, size, Symmetry(block, plan.runs))
        book = trained(task, begun, quick=quick)
        bases = folded(task.symmetry, book.codewords)
        books[str(channels)] = {"digest": book.digest, "bases": bases}
        print(f"  {channels}: {held_out(book, channels):.5f}, {len(bases)} bases", flush=True)
    return {
        "block": block,
        "size": size,
        "grid": grid(block),
        "runs": list(plan.runs),
        "books": books,
    }


def text(found: dict[str, Any]) -> str:
    """The file: JSON with a base a line."""
    books = found.pop("books")
    lines = [f' "{name}": {json.dumps(value)},' for name, value in found.items()]
    lines += [' "books": {']
    for channels, book in books.items():
        rows = ",\n".join("   " + json.dumps(base, separators=(",", ":")) for base in book["bases"])
        end = "" if channels == str(CHANNELS[-1]) else ","
        lines += [f'  "{channels}": {{"digest": "{book["digest"]}", "bases": [', f"{rows}]}}{end}"]
    return "\n".join(["{", *lines, " }", "}", ""])


def held_out(book: Codebook, channels: int) -> float:
    """The relative error of blocks that nothing was trained on or chosen by."""
    size, block = book.codewords.shape
    return measured(book, Task(channels, block, size, Symmetry(block)).blocks(HELD_OUT, MEASURE))


def table() -> str:
    """Held-out errors of what the package holds."""
    head = " | ".join(f"({block}, {size})" for block, size in SIZES)
    lines = [f"| D | {head} |", "|---" * (len(SIZES) + 1) + "|"]
    for channels in CHANNELS:
        errors = [f"{held_out(codebook(channels, *each), channels):.5f}" for each in SIZES]
        lines.append(f"| {channels} | {' | '.join(errors)} |")
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--only", action="append", metavar="K-N")
    options.add_argument("--quick", action="store_true")
    options.add_argument("--measure", action="store_true")
    asked = options.parse_args()
    if asked.measure:
        print(table())
        return
    for block, size in SIZES:
        name = f"{block}-{size}"
        if asked.only and name not in asked.only:
            continue
        print(name, flush=True)
        written = text(stored(block, size, quick=asked.quick))
        for folder in (FORMATS, FOLDER):
            folder.mkdir(exist_ok=True)
            (folder / f"{name}.json").write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()

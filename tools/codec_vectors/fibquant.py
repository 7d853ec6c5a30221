"""fibquant: every codebook, indices of more than a byte, rows of few blocks, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from codec_vectors import rotated_cases
from codec_vectors.recipe import PAINT, Case, Group, misfits, replaced, words
from codec_vectors.rotated_cases import Rotated
from numpy.typing import NDArray

from kvq_cli.page import DType, PageSpec
from kvq_cli.planes import table_spec

NOTES = {
    **rotated_cases.NOTES,
    "Book": "a codebook, on rows like those of a cache",
    "Tops": "indices of more than 8 bits",
    "Given": "a codebook that is a table of the container",
    "Padding": "bits behind the last code of a row",
}
REFUSED = [
    *((params, pointer) for params, pointer in rotated_cases.REFUSED if pointer != "/codebook"),
    ({"codebook": "file"}, "/codebook"),
    ({"codebook": "blake3:00"}, "/codebook"),
    ({"codebook": None}, "/codebook"),
    ({"block": 1}, "/block"),
    ({"block": 128}, "/block"),
    ({"block": "4"}, "/block"),
    ({"block": None}, "/block"),
    ({"size": 1}, "/size"),
    ({"size": 1 << 17}, "/size"),
    ({"block": 3}, ""),
    ({"size": 255}, ""),
    ({"size": 256.0}, "/size"),
    ({"size": True}, "/size"),
    ({"block": 2, "size": 32}, ""),
    ({"block": 8, "size": 4096}, ""),
    ({"norm_correction": 1}, "/norm_correction"),
]
BOOKS = ((2, 64), (2, 256), (4, 32), (4, 256), (4, 1024), (4, 4096), (8, 256), (16, 256))


# Codebooks that do not come with kvq: 16 pairs, and 4 blocks of 8.
PAIRS = np.array([(x * 60, y * 60) for x in (-3, -1, 1, 3) for y in (-3, -1, 1, 3)], "<i2")
EIGHTS = np.array(
    [[64 * (1 - 2 * (row >> at % 2 & 1)) for at in range(8)] for row in range(4)], "<i2"
)


def tables() -> list[NDArray[Any]]:
    return [PAIRS, EIGHTS]


def params(**changed: Any) -> dict[str, Any]:
    chosen = {"rotation": "hadamard", "seed": 0, "norm": "f16", "center": False}
    book = {"block": 4, "size": 256, "codebook": "builtin"}
    return {**book, **chosen, "norm_correction": True, **changed}


def groups() -> list[Group]:
    shared = Rotated(params, ("codes",), list, ())
    kept = [group for group in shared.groups() if group.spec.channels <= 256]
    plain = Rotated(lambda **changed: params(norm_correction=False, **changed), (), list, ())
    return [*kept, *plain.groups()[:1], *_books(), *_padded(), *_given()]


def _given() -> Iterator[Group]:
    """Codebooks from tables: any number of channels that can be rotated."""
    for table, shapes in ((PAIRS, ((1, 2, 8), (2, 1, 100))), (EIGHTS, ((1, 2, 112), (1, 1, 300)))):
        digest = table_spec(table).digest
        chosen = params(block=table.shape[1], size=len(table), codebook=digest)
        for shape in shapes:
            spec = PageSpec(*shape, DType.F16)
            cases = [Case(["Given", "Paint"], PAINT)]
            cases += [Case(["Given", "Code"], change=replaced("codes", 0, bytes([0xE4])))]
            yield Group(chosen, spec, [*cases, *misfits(["codes"])[:1]])


def _books() -> Iterator[Group]:
    rng = np.random.default_rng(6)
    for block, size in BOOKS:
        for channels in (64, 128):
            spec = PageSpec(1, 2, channels, DType.F16)
            cases = [
                Case(["Paint"], PAINT),
                Case(["Book"], words(spec, rng.standard_normal(spec.elements))),
                Case(["Book"], words(spec, rng.standard_t(3, spec.elements))),
                Case(["Code"], change=replaced("codes", 0, bytes([255, 0, 170, 85]))),
            ]
            if size > 256:
                cases += [Case(["Tops"], change=replaced("tops", 1, b"\xff"))]
                cases += misfits(["tops"])
            yield Group(params(block=block, size=size), spec, cases)


def _padded() -> Iterator[Group]:
    """20 blocks of 5 bits leave 4 bits of the last byte."""
    spec = PageSpec(1, 2, 80, DType.F16)
    cases = [Case(["Padding", "Paint"], PAINT)]
    cases += [
        Case(["Padding"], change=replaced("codes", 12, bytes([byte])))
        for byte in (0x10, 0x80, 0xF0)
    ]
    yield Group(params(size=32), spec, cases)

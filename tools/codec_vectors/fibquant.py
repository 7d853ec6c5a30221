"""fibquant: every codebook, indices of more than a byte, rows of few blocks, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from codec_vectors import rotated_cases
from codec_vectors.recipe import PAINT, Case, Group, misfits, replaced, words
from codec_vectors.rotated_cases import Rotated

from kvq_cli.page import DType, PageSpec

NOTES = {
    **rotated_cases.NOTES,
    "Book": "a codebook, on rows like those of a cache",
    "Tops": "indices of more than 8 bits",
    "Padding": "bits behind the last code of a row",
}
REFUSED = [
    *((params, pointer) for params, pointer in rotated_cases.REFUSED if pointer != "/codebook"),
    ({"codebook": "file"}, "/codebook"),
    ({"block": 3}, "/block"),
    ({"block": "4"}, "/block"),
    ({"block": None}, "/block"),
    ({"size": 255}, "/size"),
    ({"size": 256.0}, "/size"),
    ({"size": True}, "/size"),
    ({"block": 2, "size": 32}, ""),
    ({"block": 8, "size": 4096}, ""),
    ({"norm_correction": 1}, "/norm_correction"),
]
BOOKS = ((2, 64), (2, 256), (4, 32), (4, 256), (4, 1024), (4, 4096), (8, 256), (16, 256))


def params(**changed: Any) -> dict[str, Any]:
    chosen = {"rotation": "hadamard", "seed": 0, "norm": "f16", "center": False}
    return {"block": 4, "size": 256, **chosen, "norm_correction": True, **changed}


def groups() -> list[Group]:
    shared = Rotated(params, ("codes",), list, ())
    kept = [group for group in shared.groups() if group.spec.channels <= 256]
    plain = Rotated(lambda **changed: params(norm_correction=False, **changed), (), list, ())
    return [*kept, *plain.groups()[:1], *_books(), *_padded()]


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

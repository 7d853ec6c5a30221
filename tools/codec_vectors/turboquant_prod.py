"""turboquant_prod: what turboquant_mse has, residuals, signs, and damage to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from codec_vectors import rotated_cases
from codec_vectors.recipe import Case, Group, replaced
from codec_vectors.rotated_cases import Rotated

NOTES = {
    **rotated_cases.NOTES,
    "Exact": "a residual of 0: the codes alone stand for the row",
    "Signs": "any signs can be decoded",
    "Residual": "a residual as long as two rows is allowed, a longer one is not",
}
REFUSED = [
    *rotated_cases.REFUSED,
    ({"bits": 1}, "/bits"),
    ({"bits": 6}, "/bits"),
    ({"norm_correction": True}, "/norm_correction"),
]


def params(**changed: Any) -> dict[str, Any]:
    chosen = {"bits": 4, "rotation": "hadamard", "seed": 0, "norm": "f16", "center": False}
    return {**chosen, **changed}


def damage() -> Iterator[Case]:
    for word in (0x4000, 0x4001, 0x7C00, 0x7E00, 0x8000, 0xFFFF):
        yield Case(["Residual"], change=replaced("residuals", 2, word.to_bytes(2, "little")))
    yield Case(["Exact"], change=replaced("residuals", 0, bytes(2)))
    yield from (Case(["Signs"], change=replaced("signs", 0, bytes([one]))) for one in (0, 255))


def groups() -> list[Group]:
    names = ("residuals", "codes", "signs")
    return Rotated(params, names, damage, (2, 3, 4, 5)).groups()

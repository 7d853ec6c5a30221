"""turboquant_mse: levels of every width, rotations of every kind, norms, and damage."""

from __future__ import annotations

from typing import Any

from codec_vectors import rotated_cases
from codec_vectors.recipe import Group
from codec_vectors.rotated_cases import Rotated

NOTES = rotated_cases.NOTES
REFUSED = [
    *rotated_cases.REFUSED,
    ({"bits": 0}, "/bits"),
    ({"norm_correction": 1}, "/norm_correction"),
    ({"norm_correction": None}, "/norm_correction"),
]


def params(**changed: Any) -> dict[str, Any]:
    chosen = {"bits": 4, "rotation": "hadamard", "seed": 0, "norm": "f16", "center": False}
    return {**chosen, "norm_correction": True, **changed}


def groups() -> list[Group]:
    shared = Rotated(params, ("codes",), list, tuple(range(1, 9)))
    plain = Rotated(lambda **changed: params(norm_correction=False, **changed), (), list, (2,))
    return [*shared.groups(), *plain.groups()[:2]]

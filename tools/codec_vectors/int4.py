"""int4: grids with and without zeros over groups of channels, means, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from codec_vectors import grid_cases
from codec_vectors.grid_cases import Grid
from codec_vectors.recipe import (
    PAINT,
    Case,
    Group,
    bad_means,
    misfits,
    not_finite,
    pattern,
    replaced,
    words,
)
from codec_vectors.scaled_cases import EXTREME, OFFSET, ends

from kvq_cli.page import DType, PageSpec

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"group": 16}, "/group"),
    ({"group": 64.0}, "/group"),
    ({"group": "64"}, "/group"),
    ({"group": None}, "/group"),
    ({"zero_point": 1}, "/zero_point"),
    ({"zero_point": None}, "/zero_point"),
    ({"center": "true"}, "/center"),
    ({"center": 0}, "/center"),
    ({"scale": "bf16"}, "/scale"),
    ({"scale": True}, "/scale"),
    ({"bits": 4}, "/bits"),
    ({"axis": "channel"}, "/axis"),
]


def params(
    scale: Literal["f16", "f32"] = "f16",
    *,
    group: int = 32,
    zero_point: bool = False,
    center: bool = False,
) -> dict[str, Any]:
    return {"group": group, "zero_point": zero_point, "center": center, "scale": scale}


def groups() -> list[Group]:
    found = []
    for dtype in DType:
        for zeroed in (False, True):
            for scale in ("f16", "f32"):
                grid = Grid(params(scale, zero_point=zeroed), dtype, zeroed=zeroed)
                found.append(grid_cases.main_group(grid))
            found.append(_centred(dtype, zeroed=zeroed))
    return [*found, *_shapes(), *_extremes(), *_converted()]


def _centred(dtype: DType, *, zeroed: bool) -> Group:
    spec = PageSpec(1, 3, 4, dtype)
    scale: Literal["f16", "f32"] = "f16" if dtype is DType.F16 else "f32"
    sign, wide = 1 << (8 * dtype.size - 1), dtype is not DType.F16
    cases = [
        Case(["Paint", "Centred"], PAINT),
        Case(["Centred"], words(spec, OFFSET)),
        Case(["Centred", "Zero"], words(spec, [-0.0, 0, 1, -1] * 3)),
        Case(["Apart"], words(spec, [100, -50, 3, 0.5, 0.1, -0.2, 0, -0.0, 101, -49, 2.5, 1])),
        Case(["Apart"], words(spec, [1, 1, 1, 1, -1, -1, -1, -1] + [0] * 4)),
        Case(["Centred", "Subnormal"], pattern(spec, [1, 2, sign | 3, 100, 0, 127] * 2)),
        Case(["Uncentred" if wide else "Centred", "Largest"], ends(spec)),
    ]
    cases += bad_means(dtype)
    choices = (0, 1, 2, 0x80, 0xFF)
    cases += [Case(["Choice"], change=replaced("centred", 1, bytes([one]))) for one in choices]
    cases += not_finite(spec, 6)
    chosen = params(scale, zero_point=zeroed, center=True)
    cases += grid_cases.scale_damage(Grid(chosen, dtype, zeroed=zeroed))
    if dtype is DType.F16:
        cases += misfits(["means", "centred"])
    return Group(chosen, spec, cases)


def _shapes() -> Iterator[Group]:
    shapes = [(1, 1, 1, 32), (2, 1, 3, 64), (1, 5, 33, 32), (1, 1, 65, 64), (1, 2, 129, 128)]
    for zeroed in (False, True):
        for *shape, group in shapes:
            spec = PageSpec(*shape, DType.F16)
            chosen = params(group=group, zero_point=zeroed)
            yield grid_cases.shape_group(chosen, spec, 4, rest=shape[2] > group)
        for heads, tokens, dtype in ((2, 5, DType.F32), (1, 1, DType.F16), (1, 1, DType.BF16)):
            chosen = params("f32", zero_point=zeroed, center=True)
            yield grid_cases.shape_group(chosen, PageSpec(heads, tokens, 3, dtype), 4)


def _extremes() -> Iterator[Group]:
    """A token, and a channel, far from the others."""
    spec = PageSpec(1, 4, 4, DType.F16)
    for center, zeroed in ((False, False), (False, True), (True, False)):
        chosen = params(zero_point=zeroed, center=center)
        flag = "Pulled" if center else "Extreme"
        yield Group(chosen, spec, [Case([flag], words(spec, EXTREME))])
    spec = PageSpec(1, 1, 128, DType.F16)
    yield grid_cases.norm_group(params(group=128), spec)
    yield grid_cases.norm_group(params(group=128, zero_point=True), spec)


def _converted() -> Iterator[Group]:
    for zeroed, center in ((False, False), (True, False), (False, True), (True, True)):
        chosen = params("f32", zero_point=zeroed, center=center)
        yield grid_cases.converted(Grid(chosen, DType.F32, zeroed=zeroed))


NOTES = grid_cases.notes(groups())

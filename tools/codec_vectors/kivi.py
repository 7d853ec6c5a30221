"""kivi: grids with zeros of 2, 3, 4 and 8 bits along either axis, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from codec_vectors import grid_cases
from codec_vectors.grid_cases import Grid
from codec_vectors.recipe import Case, Group, words
from codec_vectors.scaled_cases import EXTREME

from kvq_cli.page import DType, PageSpec

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"bits": 1}, "/bits"),
    ({"bits": 5}, "/bits"),
    ({"bits": 4.0}, "/bits"),
    ({"bits": "4"}, "/bits"),
    ({"bits": None}, "/bits"),
    ({"group": 16}, "/group"),
    ({"group": True}, "/group"),
    ({"axis": "row"}, "/axis"),
    ({"axis": 1}, "/axis"),
    ({"axis": None}, "/axis"),
    ({"scale": "bf16"}, "/scale"),
    ({"scale": False}, "/scale"),
    ({"center": True}, "/center"),
    ({"zero_point": True}, "/zero_point"),
]
Axis = Literal["token", "channel"]
AXES: tuple[Axis, ...] = ("token", "channel")
# Each number of bits along each axis, and each dtype of pages with each of scales.
MAIN: list[tuple[int, Axis, DType, Literal["f16", "f32"]]] = [
    *((bits, axis, DType.F16, "f16") for bits in (2, 3, 4, 8) for axis in AXES),
    (4, "channel", DType.F16, "f32"),
    (2, "token", DType.BF16, "f16"),
    (8, "channel", DType.BF16, "f32"),
    (3, "channel", DType.F32, "f16"),
    (2, "channel", DType.F32, "f32"),
    (8, "token", DType.F32, "f32"),
]


def params(
    bits: int, axis: Axis, scale: Literal["f16", "f32"] = "f16", *, group: int = 32
) -> dict[str, Any]:
    return {"bits": bits, "group": group, "axis": axis, "scale": scale}


def groups() -> list[Group]:
    found = []
    for bits, axis, dtype, scale in MAIN:
        found.append(grid_cases.main_group(Grid(params(bits, axis, scale), dtype, axis, bits)))
    return [*found, *_shapes(), *_extremes(), *_converted()]


def _shapes() -> Iterator[Group]:
    for bits in (2, 3, 4, 8):
        for axis in AXES:
            for shape in ((1, 1, 1), (2, 1, 3), (1, 5, 3), (1, 1, 33), (1, 33, 1)):
                along = shape[2] if axis == "token" else shape[1]
                spec = PageSpec(*shape, DType.F16)
                yield grid_cases.shape_group(params(bits, axis), spec, bits, rest=along > 32)
    for group in (64, 128):
        for axis, shape in (("token", (1, 1, group + 1)), ("channel", (1, group + 1, 1))):
            chosen = params(2, axis, group=group)
            yield grid_cases.shape_group(chosen, PageSpec(*shape, DType.F16), 2, rest=True)


def _extremes() -> Iterator[Group]:
    """A token far from the others: alone with axis "token", else one of its group's tokens."""
    spec = PageSpec(1, 4, 4, DType.F16)
    yield Group(params(4, "token"), spec, [Case(["Extreme"], words(spec, EXTREME))])
    spec = PageSpec(1, 40, 1, DType.F16)
    numbers = [((7 * token) % 11 - 5) / 4 for token in range(40)]
    numbers[35] = -6000
    yield Group(params(4, "channel"), spec, [Case(["Extreme"], words(spec, numbers))])
    yield grid_cases.norm_group(params(2, "token", group=128), PageSpec(1, 1, 128, DType.F16))
    yield grid_cases.norm_group(params(2, "channel", group=128), PageSpec(1, 128, 1, DType.F16))


def _converted() -> Iterator[Group]:
    for bits, axis in ((4, AXES[1]), (2, AXES[0])):
        yield grid_cases.converted(Grid(params(bits, axis, "f32"), DType.F32, axis, bits))


NOTES = grid_cases.notes(groups())

"""transform: groups of one layer and two, turns of both styles, both float types, and damage."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from codec_vectors.recipe import (
    SIZE_NOTES,
    Case,
    Group,
    PackedPlanes,
    misfits,
    not_finite,
    pattern,
    replaced,
    words,
)
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY
from kvq_cli.page import DType, PageSpec
from kvq_cli.words import Place, Role

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from support.bases import REACH, Calibration, calibration, group, turn

NOTES = {
    **SIZE_NOTES,
    "Rows": "rows like those that calibrations are for, and a few that are not",
    "Group": "two layers, whose heads are all in one page",
    "Rank": "fewer components than dimensions",
    "Turned": "keys with rotary positions, half-rotated, all channels",
    "Interleaved": "pairs of neighbouring channels; the last two do not turn",
    "Unturned": "keys of a group with a turn that have no positions",
    "Wide": "sums of products that only float64 holds",
    "Lanes": "more lanes than one",
    "Shifted": "components with low bits of their own",
    "Escape": "a component that its class has no symbol for, in one token",
    "Silent": "all components 0: restored as the means",
    "Far": "a dimension beyond 2^24, or a component beyond 2^20 steps; and just within",
    "Larger": "a page that would take more words than it has",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Positions": "the last positions of the turn, and one beyond",
    "Shape": "one token",
    "Convert": "decoded to another dtype",
    "Largest": "beyond the largest finite number of the page's own dtype",
    "Overflow": "beyond that of another dtype",
    "Place": "layers that are no group, or not all heads of one",
    "Class": "a class that there is not, a last one of 0, or more than the rank",
    "State": "a state below 2^16, or one that leaves something over",
    "Words": "a word too few, too many, or another",
    "Escapes": "half an escape, one that the class has a symbol for, or one out of range",
}
TEXT = "blake3:" + "0" * 64
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"basis": TEXT, "size": None}, ""),
    ({"basis": None, "size": 64}, ""),
    ({"basis": "blake3:" + "0" * 63, "size": 64}, "/basis"),
    ({"basis": "blake3:" + "A" * 64, "size": 64}, "/basis"),
    ({"basis": 1, "size": 64}, "/basis"),
    ({"basis": TEXT, "size": 31}, "/size"),
    ({"basis": TEXT, "size": (1 << 26) + 1}, "/size"),
    ({"basis": TEXT, "size": 64.0}, "/size"),
    ({"step": 0}, "/step"),
    ({"step": -1}, "/step"),
    ({"step": (1 << 24) + 1}, "/step"),
    ({"step": 1.5}, "/step"),
    ({"step": True}, "/step"),
    ({"turned": None}, "/turned"),
    ({"turned": 1}, "/turned"),
    ({"bits": 2}, "/bits"),
]
UNIT = 65536


@cache
def plain() -> Calibration:
    """Four channels, no turn."""
    made = [
        group(Role.KEY, 0, 1, 1, 4),
        group(Role.KEY, 1, 2, 2, 4),
        group(Role.VALUE, 0, 1, 3, 4, rank=8),
    ]
    return calibration(made)


@cache
def turned() -> Calibration:
    """Eight channels; keys of layer 0 half-rotated, of layer 1 interleaved and in part."""
    made = [
        group(Role.KEY, 0, 1, 2, 8, turn=0),
        group(Role.KEY, 1, 2, 1, 8, turn=1),
        group(Role.VALUE, 0, 1, 2, 8),
    ]
    turns = [turn(4, fine=4, coarse=8), turn(3, interleaved=True, fine=8, coarse=4)]
    return calibration(made, turns)


@cache
def far() -> Calibration:
    """Restored numbers far larger than components say, and means that no turn leaves finite."""
    made = group(Role.KEY, 0, 1, 1, 2)
    made.group.exponents[:] = -60
    made.forward.inward[:] = 0
    ends = group(Role.KEY, 1, 1, 1, 2, turn=0)
    ends.group.means[:] = np.ldexp(np.float32([226, -226]), 120)
    return calibration([made, ends], [turn(1, fine=2, coarse=2)])


def tables() -> list[NDArray[Any]]:
    return [plain().table, turned().table, far().table]


def forward() -> Iterator[dict[str, Any]]:
    """What an encoder finds beside the basis tables."""
    for made in (plain(), turned(), far()):
        for number, each in enumerate(made.forward):
            parts = {"matrix": each.matrix, "in": each.inward, "out": each.outward}
            yield {"basis": made.digest, "group": number, **parts}


def params(made: Calibration, step: int, **more: Any) -> dict[str, Any]:
    return {"basis": made.digest, "size": made.table.nbytes, "step": step, **more}


def rows(spec: PageSpec, times: float = 1.0) -> NDArray[Any]:
    """Numbers from -6 to 6, the last channel smaller."""
    number = np.arange(spec.elements).reshape(spec.shape)
    values = ((number * number * 7 + number * 3) % 193 - 96) / 16 * times
    values[..., -1] /= 8
    return words(spec, values.ravel())


def groups() -> list[Group]:
    key, value = Role.KEY, Role.VALUE
    found = []
    for dtype in DType:
        first = PageSpec(1, 6, 4, dtype, Place(key, 0, 1, 0))
        found.append(_main(params(plain(), UNIT // 4), first, ["Rows"]))
    several = PageSpec(4, 9, 4, DType.F16, Place(key, 1, 2, 3))
    found.append(_main(params(plain(), UNIT // 2), several, ["Group"]))
    ranked = PageSpec(3, 5, 4, DType.BF16, Place(value, 0, 1, 0))
    found.append(_main(params(plain(), UNIT), ranked, ["Rank"]))
    half = PageSpec(2, 7, 8, DType.F16, Place(key, 0, 1, 5))
    found.append(_positions(params(turned(), UNIT // 8), half, ["Turned"], 32))
    parted = PageSpec(2, 5, 8, DType.F32, Place(key, 1, 2, 9))
    found.append(_positions(params(turned(), UNIT // 3), parted, ["Interleaved"], 32))
    unturned = PageSpec(2, 6, 8, DType.F16, Place(key, 0, 1, 1 << 40))
    found.append(_main(params(turned(), UNIT // 8, turned=False), unturned, ["Unturned"]))
    values = PageSpec(2, 4, 8, DType.F32, Place(value, 0, 1, 77))
    found.append(_main(params(turned(), UNIT // 5), values, ["Rows"]))
    return [*found, _wide(), _lanes(), *_limits(), *_shapes()]


def _main(members: dict[str, Any], spec: PageSpec, flags: list[str]) -> Group:
    """A page that goes both ways, and damage to it."""
    page, place = rows(spec), spec.place
    assert place is not None
    cases = [Case(flags, page)]
    cases += [Case(["Convert"], page, target=other) for other in DType if other is not spec.dtype]
    cases += [*_silent(members, spec), *not_finite(spec, spec.elements // 2)]
    cases += [*misfits(["classes", "states", "words"]), *_damage(spec)]
    for other in (Place(place.role, place.layer, 4, 0), Place(place.role, 9, place.layers, 0)):
        cases += [Case(["Place"], page, place=other), Case(["Place"], change=dict, place=other)]
    return Group(members, spec, cases)


def _positions(members: dict[str, Any], spec: PageSpec, flags: list[str], most: int) -> Group:
    found, place = _main(members, spec, flags), spec.place
    assert place is not None
    page = rows(spec)
    for first in (most - spec.tokens, most - spec.tokens + 1, most, 1 << 40):
        other = Place(place.role, place.layer, place.layers, first)
        found.cases.append(Case(["Positions"], page, place=other))
        found.cases.append(Case(["Positions"], change=dict, place=other))
    return found


def _silent(members: dict[str, Any], spec: PageSpec) -> Iterator[Case]:
    """The means themselves, where nothing turns them."""
    made = {each.digest: each for each in (plain(), turned())}[members["basis"]]
    place = spec.place
    assert place is not None
    number = made.basis.number(place.role, place.layer, place.layers)
    assert number is not None
    each = made.basis.groups[number]
    if each.turn is not None and members.get("turned", True):
        return
    means = each.means.reshape(spec.heads, 1, spec.channels)
    page = words(spec, np.broadcast_to(means, spec.shape).ravel())
    yield Case(["Silent"], page)


def _damage(spec: PageSpec) -> Iterator[Case]:
    """What no encoder writes in classes, states and words."""
    size = spec.heads * spec.channels

    def classes(data: bytes) -> Any:
        return lambda planes: {**planes, "classes": data}

    def tail(more: bytes) -> Any:
        return lambda planes: {**planes, "words": planes["words"] + more}

    for number in (213, 255):
        yield Case(["Class"], change=replaced("classes", 0, bytes([number])))
    for data in (bytes(size), bytes([9] * (size - 1) + [0]), bytes([9] * (size + 1))):
        yield Case(["Class"], change=classes(data))
    yield Case(["Class"], change=classes(bytes([1] * size)))
    for state in (0, 1, 0xFFFF):
        yield Case(["State"], change=replaced("states", 0, struct.pack("<I", state)))
    yield Case(["State"], change=replaced("states", 0, bytes([255, 255, 255, 255])))
    yield Case(["Words"], change=lambda planes: {**planes, "words": planes["words"][2:]})
    yield Case(["Words"], change=lambda planes: {**planes, "words": planes["words"][:-2]})
    yield Case(["Words"], change=tail(b"\0\0"))
    yield Case(["Escapes"], change=tail(b"\1\0\0\0"))
    yield Case(["Escapes"], change=tail(b"\xff\xff\xff\x7f"))


def _wide() -> Group:
    """Steps so small that v is beyond what float32 sums hold; and a token unlike the others."""
    spec = PageSpec(1, 40, 4, DType.F32, Place(Role.KEY, 0, 1, 0))
    page = rows(spec, 300.0)
    odd = rows(spec)
    odd[0, 17] = words(PageSpec(1, 1, 4, DType.F32), [5000, -4000, 3000, 250])[0, 0]
    cases = [Case(["Wide", "Shifted"], page), Case(["Escape"], odd)]
    cases += [Case(["Convert"], page, target=DType.BF16)]

    def last(planes: PackedPlanes, data: bytes) -> PackedPlanes:
        return {**planes, "words": planes["words"][: -len(data)] + data}

    for data in (b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff", b"\0\0\x10\0", b"\xff\xff\xff\x7f"):
        cases.append(Case(["Escapes"], odd, change=lambda planes, data=data: last(planes, data)))
    cases.append(Case(["Escapes"], odd, change=lambda each: {**each, "words": each["words"][:-4]}))
    return Group(params(plain(), UNIT // 64), spec, cases)


def _lanes() -> Group:
    spec = PageSpec(4, 100, 4, DType.F16, Place(Role.KEY, 1, 2, 0))
    cases = [Case(["Lanes"], rows(spec)), *_damage(spec)]
    return Group(params(plain(), UNIT), spec, cases)


def _limits() -> Iterator[Group]:
    """As far as dimensions, components, words and dtypes go."""
    spec = PageSpec(1, 2, 4, DType.F32, Place(Role.KEY, 0, 1, 0))
    near = [[0, 0, REACH * 0.99, 0], [0, 0, REACH * 1.01, 0]]
    cases = [Case(["Rows"], rows(spec))]
    cases += [Case(["Far"], words(spec, [*row, 0, 0, 0, 0])) for row in near]
    top = (INFINITY[DType.F32] - 1) | 0x80000000
    cases.append(Case(["Far"], pattern(spec, [0] * 7 + [top])))
    yield Group(params(plain(), UNIT), spec, cases)
    # A step of 1/1024: components end at 1,024.
    cases = [Case(["Rows"], rows(spec))]
    cases += [Case(["Far"], words(spec, [0, 0, size, 0, 0, 0, 0, 0])) for size in (500, 3000)]
    yield Group(params(plain(), 64), spec, cases)
    # Sixteen bits an element are not enough for these digits.
    spec = PageSpec(1, 30, 4, DType.F16, Place(Role.KEY, 0, 1, 0))
    cases = [Case(["Rows"], rows(spec, 2.0**-4)), Case(["Larger"], rows(spec, 64.0))]
    yield Group(params(plain(), 64), spec, cases)
    yield from _largest()


def _largest() -> Iterator[Group]:
    """Beyond F16, and beyond what float32 sums hold, once means are turned."""
    spec = PageSpec(1, 2, 2, DType.F16, Place(Role.KEY, 0, 1, 0))
    page = words(spec, [2000, 0, -3000, 0])
    cases = [Case(["Largest"], page)]
    cases += [Case(["Convert"], page, target=other) for other in (DType.BF16, DType.F32)]
    yield Group(params(far(), UNIT), spec, [*cases, *misfits(["states"])])
    for dtype in (DType.BF16, DType.F32):
        spec = PageSpec(1, 1, 2, dtype, Place(Role.KEY, 1, 1, 0))
        cases = [Case(["Silent"], words(spec, far().basis.groups[1].means))]
        for position in (1, 2, 3):
            other = Place(Role.KEY, 1, 1, position)
            cases.append(Case(["Largest"], change=dict, place=other))
            for target in (each for each in DType if each is not dtype):
                cases.append(Case(["Overflow"], change=dict, place=other, target=target))
        yield Group(params(far(), UNIT), spec, cases)


def _shapes() -> Iterator[Group]:
    for made, place, shape in (
        (plain(), Place(Role.KEY, 0, 1, 0), (1, 1, 4)),
        (plain(), Place(Role.KEY, 1, 2, 0), (4, 1, 4)),
        (turned(), Place(Role.KEY, 1, 2, 31), (2, 1, 8)),
    ):
        spec = PageSpec(*shape, DType.F16, place)
        cases = [Case(["Shape"], rows(spec)), *_damage(spec)]
        yield Group(params(made, UNIT // 4), spec, cases)

"""recipe: what a codec's conformance vectors are made of.

A recipe is a module of this folder named like its codec, with NOTES (flag: what it stands
for), `groups()` and `REFUSED` (params: pointer of the member at fault); with `tables()` if its
parameters name any, and `forward()` if an encoder needs more than these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY, narrow
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, PageSpec
from kvq_cli.words import Place

PackedPlanes: TypeAlias = dict[str, bytes]
PAINT = {"paint": 251}


@dataclass(frozen=True)
class Case:
    """A page, or planes made by damaging those of the group's first page."""

    flags: list[str]
    page: NDArray[Any] | dict[str, int] | None = None
    change: Callable[[PackedPlanes], PackedPlanes] | None = None
    target: DType | None = None
    place: Place | None = None  # in place of the group's


@dataclass
class Group:
    """Cases of one codec instance and page spec."""

    params: dict[str, Any]
    spec: PageSpec
    cases: list[Case] = field(default_factory=list)


def words(spec: PageSpec, numbers: Iterable[float]) -> NDArray[Any]:
    """A page of finite numbers, rounded to the dtype."""
    values = np.array(list(numbers), np.float32).reshape(spec.shape)
    bits = np.empty(spec.shape, spec.dtype.bits)
    narrow(values, spec.dtype, bits, Scratch())
    return bits


def pattern(spec: PageSpec, bits: Iterable[int]) -> NDArray[Any]:
    """A page of element bits."""
    return np.array(list(bits), spec.dtype.bits).reshape(spec.shape)


def painted(spec: PageSpec) -> NDArray[Any]:
    """The page {"paint": 251}."""
    return words(spec, (((i % 251) - 125) / 32 for i in range(spec.elements)))


def replaced(plane: str, at: int, data: bytes) -> Callable[[PackedPlanes], PackedPlanes]:
    """Bytes written into a plane."""

    def change(planes: PackedPlanes) -> PackedPlanes:
        old = planes[plane]
        return {**planes, plane: old[:at] + data + old[at + len(data) :]}

    return change


def not_finite(spec: PageSpec, at: int) -> Iterator[Case]:
    """Each kind of infinity and NaN, and infinity behind it."""
    top, sign = INFINITY[spec.dtype], 1 << (8 * spec.dtype.size - 1)
    for word in (top, sign | top, top + 1, sign - 1):
        bits = [0] * spec.elements
        bits[at], bits[-1] = word, top
        yield Case(["NonFinite"], pattern(spec, bits))


def bad_means(dtype: DType) -> Iterator[Case]:
    """Each kind of infinity and NaN as the second mean."""
    top, sign = INFINITY[dtype], 1 << (8 * dtype.size - 1)
    for word in (top, sign | top, top + 1, 2 * sign - 1):
        change = replaced("means", dtype.size, word.to_bytes(dtype.size, "little"))
        yield Case(["Mean"], change=change)


def misfits(names: Iterable[str]) -> list[Case]:
    """Planes that are too short, too long, empty, missing, or one too many."""
    cases = []
    for name in names:
        cases += [
            Case(["Size"], change=lambda planes, name=name: {**planes, name: planes[name][:-1]}),
            Case(["Size"], change=lambda planes, name=name: {**planes, name: planes[name] + b"\0"}),
            Case(["Size"], change=lambda planes, name=name: {**planes, name: b""}),
            Case(
                ["Count"],
                change=lambda planes, name=name: {k: v for k, v in planes.items() if k != name},
            ),
        ]
    return [*cases, Case(["Count"], change=lambda planes: {**planes, "extra": b""})]


SIZE_NOTES = {
    "Size": "a plane is not as long as the layout says",
    "Count": "a plane is missing, or there is one too many",
}

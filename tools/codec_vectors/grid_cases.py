"""grid_cases: what int4 and kivi have in common; not a codec of its own.

Each case is stated group by group: with axis "token" a group of the main pages is a token of
eight channels, with "channel" a channel of eight tokens. Numbers are in units of the scale
wherever that is 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from codec_vectors.recipe import (
    PAINT,
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
from codec_vectors.scaled_cases import scale_words
from numpy.typing import NDArray

from kvq_cli.numerics.bits import INFINITY
from kvq_cli.page import DType, PageSpec

NOTES = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Shape": "one token, one head, one channel, and other numbers of them",
    "Rest": "the last group of a token or channel is smaller, by all but one element here",
    "Padding": "a bit behind the last code of a row must be zero",
    "Tie": "x / scale lies half way between two codes: the even one is taken",
    "Near": "x / scale lies next to half way",
    "ZeroTie": "low / scale lies half way between two sixteenths: the even one is taken",
    "Opposite": "the opposite of the extreme gets code 15; of two the negative one is the extreme",
    "End": "the scale is rounded down: the ends of the group lie beyond the grid, codes do not",
    "Zero": "a zero group has scale 0, and comes back as plus zero",
    "ZeroScale": "under scale 0 everything is zero: minus zero under a negative zero, else plus",
    "Constant": "a group of one number",
    "Close": "a group far from zero: its scale is a part of its largest magnitude",
    "Tiny": "the reciprocal of the scale times 2**112 would overflow float32",
    "Subnormal": "the page holds subnormal numbers",
    "SubnormalScale": "the scale is below the smallest normal number: it is rounded up",
    "Sixteenth": "a scale that no encoder writes, whose sixteenth is rounded",
    "Largest": "an end of the grid rounds beyond the dtype: the largest finite number is restored",
    "Limit": "a scale or a zero that is as large as is allowed, or nearly so",
    "ScaleOverflow": "the scale is beyond the largest finite half",
    "Extreme": "one extreme token: only its own group has other codes than without it",
    "Norm": "128 elements of 6000, whose norm is beyond the largest half: nothing depends on it",
    "Centred": "each channel's mean is taken off first",
    "Apart": "a token that the means would not make smaller is not centred",
    "Choice": "another choice of whether a token is centred: 0 or 1",
    "Uncentred": "a head that reaches 2**126 has means of 0",
    "Pulled": "one extreme token pulls the means, so that others are not centred",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Scale": "a scale that is minus zero, not finite, too large, or negative on a grid with zeros",
    "ZeroPoint": "a zero beyond 28687",
    "Mean": "a mean that is infinite or NaN",
    "Convert": "decoded to another dtype: one rounding of number · scale + mean",
    "Overflow": "decoded to a dtype that cannot hold the number",
}
LENGTH = 8


@dataclass(frozen=True)
class Grid:
    """A codec instance, the dtype of its pages, and what follows from its parameters."""

    params: dict[str, Any]
    dtype: DType
    axis: Literal["token", "channel"] = "token"
    bits: int = 4
    zeroed: bool = True

    @property
    def spec(self) -> PageSpec:
        shape = (2, LENGTH) if self.axis == "token" else (LENGTH, 2)
        return PageSpec(1, *shape, self.dtype)

    @property
    def half(self) -> bool:
        return bool(self.params["scale"] == "f16")

    @property
    def center(self) -> bool:
        return bool(self.params.get("center"))

    @property
    def top(self) -> int:
        """The greatest code."""
        return (1 << self.bits) - 1

    @property
    def largest(self) -> float:
        """What scales are a part of peaks by."""
        return self.top / 2 if self.zeroed else self.top // 2 + 1

    @property
    def sign(self) -> int:
        return 1 << (8 * self.dtype.size - 1)

    def numbers(self, first: Iterable[float], second: Iterable[float]) -> NDArray[Any]:
        """A page of two groups of numbers, each filled up with its last."""
        return words(self.spec, self._laid(np.array([_full(first), _full(second)])))

    def patterns(self, first: Iterable[int], second: Iterable[int]) -> NDArray[Any]:
        """Likewise of bits."""
        return pattern(self.spec, self._laid(np.array([_full(first), _full(second)])))

    def _laid(self, groups: NDArray[Any]) -> list[Any]:
        laid = groups if self.axis == "token" else groups.T
        return [value.item() for value in laid.reshape(-1)]


def _full(values: Iterable[Any]) -> list[Any]:
    given = list(values)
    return given + given[-1:] * (LENGTH - len(given))


def notes(groups: list[Group]) -> dict[str, str]:
    """Those of NOTES that these groups have a case for."""
    used = {flag for group in groups for case in group.cases for flag in case.flags}
    return {flag: note for flag, note in NOTES.items() if flag in used}


def main_group(grid: Grid) -> Group:
    """Rounding, both ends of every format, and damage."""
    cases = [Case(["Paint"], PAINT), *_rounding(grid), *_ends(grid), *not_finite(grid.spec, 5)]
    cases += [*scale_damage(grid), *_zero_damage(grid)]
    if grid.dtype is DType.F16 and grid.bits == 4:
        cases += misfits(["scales", *(["zeros"] if grid.zeroed else []), "codes"])
    return Group(grid.params, grid.spec, cases)


def _rounding(grid: Grid) -> Iterator[Case]:
    """Groups whose scale is 1."""
    top = grid.top
    ties = [-8, 0.5, 1.5, -0.5, 7.5, 6.5, -7.5, -6.5]
    if grid.zeroed:
        ties = [0, top, 0.5, 1.5, 2.5, top - 0.5, top - 1.5, 0.25]
    exact = grid.numbers(ties, [-number for number in ties])
    yield Case(["Tie"], exact)
    off = np.resize([0, 0, 1, -1, 1, -1, -1, 1], exact.shape)
    if grid.axis == "channel":
        off = np.repeat([0, 0, 1, -1, 1, -1, -1, 1], 2).reshape(exact.shape)
    yield Case(["Near"], (exact.astype(np.int64) + off).astype(exact.dtype))
    beyond = 8.0 * (1 + 2.0**-12)
    if not grid.zeroed:
        yield Case(["Opposite"], grid.numbers([8, -8, 7.4, 7.6, -7.6, 0], [8, -7.9, -0.4, 0]))
        yield Case(["End"], grid.numbers([beyond, -beyond, 1, 0], [beyond, -7.5, 7, 0]))
        return
    steps = [1 / 32, top + 1 / 32, 3 / 32, 1], [3 / 32, top + 3 / 32, 1 / 32, 1]
    if grid.bits < 4:
        yield Case(["ZeroTie"], grid.numbers(*steps))
    yield Case(["End"], grid.numbers([0, top * beyond, top, 8], [-beyond, top * 8, 0, 8]))
    yield Case(["Constant"], grid.numbers([5.3], [-0.1]))
    yield Case(["Close"], grid.numbers([1000, 1000.5, 1001, 1002], [-3, -3.01, -3.001, -2.999]))


def _ends(grid: Grid) -> Iterator[Case]:
    """Zero, the smallest numbers and the largest."""
    end, sign = INFINITY[grid.dtype] - 1, grid.sign
    yield Case(["Zero"], grid.numbers([0, -0.0, 0, 0], [1, -1, 0, -0.0]))
    yield Case(["Tiny"], grid.numbers([2.0**-20, 2.0**-24, 0, -(2.0**-21)], [2.0**-20]))
    small = [1, 2, sign | 3, 100, 0, 127, 77, 190]
    flags = ["Subnormal"]
    if grid.half or grid.dtype is not DType.F16:
        flags.append("SubnormalScale")
    yield Case(flags, grid.patterns(small, [1, sign | 1, 0]))
    yield Case(flags, grid.patterns([sign | 5], [sign | 1, sign, 0]))
    if "SubnormalScale" in flags:
        peak = grid.largest * 2.0 ** (-14 if grid.half else -126)
        numbers = [peak * 0.99, -peak / 3, 0, peak / 7]
        yield Case(["SubnormalScale"], grid.numbers(numbers, [peak / 9, peak / 11]))
    peaks = [end, sign | end, end - 1, end // 2, 0]
    if not grid.half or grid.dtype is DType.F16:
        yield Case(["Largest"], grid.patterns(peaks, [end, end - 1]))
        return
    yield Case(["ScaleOverflow"], grid.patterns(peaks, [end, end - 1]))
    near = 65000 * grid.largest
    yield Case(["Limit"], grid.numbers([near, -near, 3], [near, 0]))
    if grid.dtype is DType.F32:
        over = 65520 * grid.largest
        under = float(np.nextafter(np.float32(over), np.float32(0)))
        yield Case(["ScaleOverflow"], grid.numbers([over, -over, 1], [0]))
        yield Case(["Limit"], grid.numbers([under, -under, 1], [0]))


def scale_damage(grid: Grid) -> Iterator[Case]:
    """The largest scale that an encoder could write, and scales that none does."""
    layout, most, infinity, sign = scale_words(
        grid.largest, grid.dtype, grid.params["scale"], center=grid.center
    )
    fine = [most] if grid.zeroed else [most, sign | most]
    bad = [most + 1, infinity, infinity + 1, sign, sign | (most + 1), 2 * sign - 1]
    if grid.zeroed:
        bad.append(sign | 1)
    for flag, values in (("Limit", fine), ("Scale", bad), ("ZeroScale", [0])):
        for word in values:
            yield Case([flag], change=replaced("scales", 0, struct.pack(layout, word)))
    if grid.zeroed and not grid.half:
        for word in (1, 8, 24, 0x00800001):
            yield Case(["Sixteenth"], change=replaced("scales", 0, struct.pack(layout, word)))


def _zero_damage(grid: Grid) -> Iterator[Case]:
    if not grid.zeroed:
        return
    for zero in (28687, -28687):
        yield Case(["Limit"], change=replaced("zeros", 2, struct.pack("<h", zero)))
    for zero in (28688, -28688, 32767, -32768):
        yield Case(["ZeroPoint"], change=replaced("zeros", 2, struct.pack("<h", zero)))


def _set_last(mask: int) -> Any:
    def change(planes: PackedPlanes) -> PackedPlanes:
        old = planes["codes"]
        return {**planes, "codes": old[:-1] + bytes([old[-1] | mask])}

    return change


def shape_group(params: dict[str, Any], spec: PageSpec, bits: int, *, rest: bool = False) -> Group:
    """A painted page, and the first and the last bit that no code fills."""
    flags = ["Shape", "Paint", *(["Rest"] if rest else [])]
    used = spec.channels * bits % 8
    spare = sorted({used, 7}) if used else []
    cases = [Case(["Padding"], change=_set_last(1 << bit)) for bit in spare]
    return Group(params, spec, [Case(flags, PAINT), *cases])


def norm_group(params: dict[str, Any], spec: PageSpec) -> Group:
    return Group(params, spec, [Case(["Norm"], words(spec, [6000] * spec.elements))])


def converted(grid: Grid) -> Group:
    """To other dtypes; the page's own is F32."""
    flags = ["Convert", *(["Centred"] if grid.center else [])]
    numbers = grid.numbers([1.0, 0.3, -0.7, 1e-3], [2.5, 2.1])
    small = grid.numbers([2e-5, 3e-6, -7e-6, -1e-9], [1e-7, -1e-7])
    beyond = [-65536.0, 0, 65504] if not grid.zeroed else [65520.0, 0, -65520]
    cases = [Case(flags, numbers, target=target) for target in (DType.F16, DType.BF16)]
    cases += [Case([*flags, "Subnormal"], small, target=DType.F16)]
    cases += [
        Case(["Overflow"], grid.numbers(beyond, beyond), target=DType.F16),
        Case(["Overflow"], grid.numbers([1e30, 0, -1e30], [0]), target=DType.F16),
    ]
    return Group(grid.params, grid.spec, cases)

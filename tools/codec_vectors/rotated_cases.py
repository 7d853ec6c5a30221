"""rotated_cases: what the recipes of rotated codecs have in common."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from codec_vectors.recipe import (
    PAINT,
    SIZE_NOTES,
    Case,
    Group,
    bad_means,
    misfits,
    not_finite,
    pattern,
    replaced,
    words,
)

from kvq_cli.numerics.bits import INFINITY
from kvq_cli.page import DType, PageSpec

NOTES: Final = {
    **SIZE_NOTES,
    "Paint": "a page given by a rule",
    "Shape": "one token, one head, one channel, and odd numbers of them",
    "Order": "channels that have no rotation of their own: zeros are added",
    "Paley": "a rotation of an order that is no power of two",
    "Haar": "a dense rotation",
    "Seed": "another rotation",
    "Zero": "a row of zeros has norm 0 and comes back as zeros",
    "Single": "one element that is not zero: all coordinates have one magnitude",
    "Tiny": "norms that f16 holds with few digits, or as 0",
    "Subnormal": "the page holds subnormal numbers",
    "Largest": "restored numbers beyond the dtype become its largest",
    "Norm": "norms as large as are allowed",
    "NormOverflow": "a norm that its dtype cannot hold",
    "BadNorm": "a norm that is negative, infinite or NaN",
    "Centred": "each channel's mean is taken off first",
    "Uncentred": "a head that reaches 2**126 has means of 0",
    "NonFinite": "infinity or NaN: refused, the first one named",
    "Code": "any codes can be decoded",
    "Mean": "a mean that is infinite or NaN",
    "Choice": "a token is centred, 1, or not, 0",
    "Convert": "decoded to another dtype",
    "Overflow": "decoded to a dtype that cannot hold the number",
}
FORMS: Final = {"f16": ("<H", 0x7C00, 1 << 15), "f32": ("<I", 0x7F800000, 1 << 31)}


@dataclass(frozen=True)
class Rotated:
    """A codec's own part: its parameters, and damage to its own planes."""

    params: Callable[..., dict[str, Any]]
    names: tuple[str, ...]  # planes that it has besides those of all
    damage: Callable[[], Iterable[Case]]
    widths: tuple[int, ...]

    def groups(self) -> list[Group]:
        found = [self._main(dtype, norm) for dtype in DType for norm in ("f16", "f32")]
        found += [self._centred(dtype) for dtype in DType]
        return [*found, *self._widths(), *self._shapes(), *self._rotations(), *self._converted()]

    def _main(self, dtype: DType, norm: str) -> Group:
        spec = PageSpec(1, 2, 8, dtype)
        top, sign = INFINITY[dtype], 1 << (8 * dtype.size - 1)
        form, infinity, minus = FORMS[norm]
        size = struct.calcsize(form)
        cases = [
            Case(["Paint"], PAINT),
            Case(["Zero"], words(spec, [0, -0.0] * 4 + [3, -1, 0.5, 2, -0.25, 1, 7, -4])),
            Case(["Single"], words(spec, [0, 0, 5, 0, 0, 0, 0, 0] + [0] * 7 + [-0.125])),
            Case(["Tiny"], words(spec, [2.0**-20, 2.0**-23, 0, -(2.0**-21)] * 4)),
            Case(["Subnormal"], pattern(spec, [1, 2, sign | 3, 100, 0, 127, 77, 90] * 2)),
        ]
        peak = pattern(spec, [top - 1, sign | (top - 1), top - 2, top // 2] * 4)
        wide = dtype is not DType.F16
        flag = "NormOverflow" if norm == "f16" or wide else "Norm"
        cases.append(Case([flag], peak))
        if norm == "f16" and wide:
            cases.append(Case(["NormOverflow"], words(spec, [65504.0, 65504.0, *[0] * 14])))
        edge = [40000.0, -30000.0, 20000.0, 10000.0, 100, -100, 0, 1] * 2
        cases.append(Case(["Norm"], words(spec, edge)))
        cases += not_finite(spec, 5)
        most = struct.pack(form, infinity - 1)
        cases.append(Case(["Largest"], change=replaced("norms", 0, most)))
        cases.append(Case(["Zero"], change=replaced("norms", 0, bytes(size))))
        cases += [
            Case(["BadNorm"], change=replaced("norms", size, struct.pack(form, word)))
            for word in (infinity, infinity + 1, minus, minus | 1, 2 * minus - 1)
        ]
        cases += [Case(["Code"], change=replaced("codes", 1, bytes([one]))) for one in (0, 255)]
        cases += [*self.damage(), *misfits(["norms", *self.names])]
        return Group(self.params(norm=norm), spec, cases)

    def _centred(self, dtype: DType) -> Group:
        spec = PageSpec(1, 3, 8, dtype)
        top, sign = INFINITY[dtype], 1 << (8 * dtype.size - 1)
        offset = [100, -30, 0.5, 0, 7, -2, 0, 1]
        near = [101, -30, 0.25, 0, 7.5, -2, 1, 1, 99.5, -30.25, 0, 1e-3, 7, -1, 0, 0.5]
        far = [top - 1, sign | (top - 1), top - 1, 0, 0, 0, 0, 0] * 3
        norm = "f16" if dtype is DType.F16 else "f32"
        cases = [
            Case(["Paint", "Centred"], PAINT),
            Case(["Centred"], words(spec, offset + near)),
            Case(["Centred", "Zero"], words(spec, [-0.0, 0, 1, -1] * 6)),
            Case(["NormOverflow", "Uncentred" if norm == "f32" else "Centred"], pattern(spec, far)),
        ]
        cases += bad_means(dtype)
        choices = (0, 1, 2, 255)
        cases += [Case(["Choice"], change=replaced("centred", 1, bytes([one]))) for one in choices]
        cases += misfits(["means", "centred"])
        return Group(self.params(norm=norm, center=True), spec, cases)

    def _widths(self) -> Iterator[Group]:
        """Every number of bits, on rows like those of a cache."""
        rng = np.random.default_rng(5)
        spec = PageSpec(2, 2, 64, DType.F16)
        values = rng.standard_normal(spec.elements)
        for bits in self.widths:
            cases = [Case(["Paint"], PAINT), Case(["Code"], words(spec, values))]
            cases += [Case(["Code"], change=replaced("codes", 0, bytes(range(200, 200 + bits))))]
            yield Group(self.params(bits=bits), spec, cases)

    def _shapes(self) -> Iterator[Group]:
        for shape, flag in (
            ((1, 1, 1), "Shape"),
            ((2, 1, 3), "Shape"),
            ((1, 5, 13), "Shape"),
            ((1, 2, 80), "Paley"),
            ((1, 1, 96), "Paley"),
            ((1, 1, 112), "Paley"),
            ((1, 1, 183), "Order"),
            ((1, 2, 256), "Shape"),
            ((1, 1, 520), "Order"),
            ((1, 1, 640), "Paley"),
        ):
            spec = PageSpec(*shape, DType.F16)
            cases = [Case(sorted({"Paint", "Order" if shape[2] % 8 else flag, flag}), PAINT)]
            if shape[2] > 8:
                cases += misfits(["codes"])[:2]
            yield Group(self.params(), spec, cases)

    def _rotations(self) -> Iterator[Group]:
        for channels in (8, 20, 64):
            for seed in (0, 1, 2**63 - 1):
                for rotation, flag in (("hadamard", "Seed"), ("haar", "Haar")):
                    spec = PageSpec(1, 2, channels, DType.F32)
                    chosen = self.params(rotation=rotation, seed=seed, norm="f32")
                    flags = ["Paint", flag, *(["Order"] if channels == 20 else [])]
                    yield Group(chosen, spec, [Case(flags, PAINT)])

    def _converted(self) -> Iterator[Group]:
        spec = PageSpec(1, 1, 8, DType.F32)
        numbers = words(spec, [1.0, 0.3, -0.7, 1e-3, 12, -3, 0, 5])
        small = words(spec, [2e-5, 3e-6, -7e-6, 1e-7, 0, 0, 6e-5, -1e-5])
        large = words(spec, [65520.0, 1e5, 0, 0, -1e5, 9e4, 0, 0])
        cases = [
            Case(["Convert"], numbers, target=DType.F16),
            Case(["Convert"], numbers, target=DType.BF16),
            Case(["Convert", "Subnormal"], small, target=DType.F16),
            Case(["Overflow"], large, target=DType.F16),
        ]
        yield Group(self.params(norm="f32"), spec, cases)


REFUSED: Final[list[tuple[dict[str, Any], str]]] = [
    ({"bits": 9}, "/bits"),
    ({"bits": 4.0}, "/bits"),
    ({"bits": "4"}, "/bits"),
    ({"bits": True}, "/bits"),
    ({"rotation": "none"}, "/rotation"),
    ({"rotation": None}, "/rotation"),
    ({"seed": -1}, "/seed"),
    ({"seed": 2**63}, "/seed"),
    ({"seed": 1.0}, "/seed"),
    ({"seed": "0"}, "/seed"),
    ({"norm": "bf16"}, "/norm"),
    ({"norm": 16}, "/norm"),
    ({"center": 1}, "/center"),
    ({"center": None}, "/center"),
    ({"group": 32}, "/group"),
    ({"codebook": "builtin"}, "/codebook"),
]

"""bits: half precision, bfloat16 and float32 into each other, by integer operations.

Spec: formats/codecs/raw.md, section "Conversion".

    f16 → f32    sign-extend, shift left 13, clear what the sign smeared; · 2**112
    bf16 → f32   shift left 16
    f32 → f16    from 2**-14 up: · 2**-112, add 0xfff and the bit that decides ties, shift
                 right 13; up to 2**-14: bits(|x| + 0.5) - bits(0.5)
    f32 → bf16   add 0x7fff and the bit that decides ties, shift right 16

Widening is exact, narrowing rounds half to even. `spread` and `gather` leave the factor
UNIT to the caller, who has a multiplication to fold it into. All but `convert` take finite
numbers only: codecs find the others by their row maxima, which costs nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType

# The bits of a magnitude, and those of infinity: larger magnitudes are NaN.
MAGNITUDE: Final = {DType.F16: 0x7FFF, DType.BF16: 0x7FFF, DType.F32: 0x7FFFFFFF}
INFINITY: Final = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}
LARGEST: Final = {
    DType.F16: 65504.0,
    DType.BF16: (2 - 2.0**-7) * 2.0**127,
    DType.F32: (2 - 2.0**-23) * 2.0**127,
}
# The least float64 magnitude that rounds to infinity.
OVERFLOW: Final = {
    DType.F16: 65520.0,
    DType.BF16: (2 - 2.0**-8) * 2.0**127,
    DType.F32: (2 - 2.0**-24) * 2.0**127,
}
# Bits of the float32 that infinity becomes where it is widened like a number; NaN lies above.
WIDE_INFINITY: Final = {DType.F16: 0x47800000, DType.BF16: 0x7F800000, DType.F32: 0x7F800000}
# The same for halves that are spread, where the factor UNIT is yet to come.
WIDE_HALF: Final = INFINITY[DType.F16] << 13
SMALLEST_NORMAL: Final = {DType.F16: 2.0**-14, DType.BF16: 2.0**-126, DType.F32: 2.0**-126}
UNIT: Final = {
    DType.F16: np.float32(2.0**112),
    DType.BF16: np.float32(1),
    DType.F32: np.float32(1),
}
MANY: Final = 32  # beyond one element in so many, all are done over
_QUIET: Final = 0x00400000  # in float32: makes a NaN quiet and keeps it from becoming infinity


def spread(bits: NDArray[Any], dtype: DType, out: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers divided by UNIT, in `out` or, for F32, as a view of the bits themselves."""
    if dtype is DType.F32:
        return bits.view(np.float32)
    if dtype is DType.BF16:
        words = out.view(np.uint32)
        np.copyto(words, bits)
        np.left_shift(words, 16, out=words)
    else:
        signed = out.view(np.int32)
        np.copyto(signed, bits.view(np.int16))
        np.left_shift(signed, 13, out=signed)
        np.bitwise_and(signed, np.int32(-0x70002000), out=signed)  # 0x8fffe000
    return out


def widen(bits: NDArray[Any], dtype: DType, out: NDArray[np.float32]) -> None:
    """Finite numbers as float32, exactly."""
    np.multiply(spread(bits, dtype, out), UNIT[dtype], out=out)


def gather(
    values: NDArray[np.float32],
    dtype: DType,
    out: NDArray[Any],
    scratch: Scratch,
    *,
    signs: NDArray[Any] | None = None,
) -> None:
    """Round values · UNIT to `dtype`; destroys `values`.

    No result may overflow, and for F16 none may lie strictly between 0 and 2**-14. `signs`
    are integers of the same signs, where the caller has them: a shorter way to the sign bits.
    """
    if dtype is DType.F32:
        np.copyto(out.view(np.float32), values)
        return
    words = values.view(np.uint32)
    rounded = scratch.take("gather", values.shape, np.uint32)
    width = 16 if dtype is DType.BF16 else 13
    shift_rounded(words, width, rounded)
    if dtype is DType.F16 and signs is None:
        np.right_shift(words, 16, out=words)
        np.bitwise_and(words, 0x8000, out=words)
        np.bitwise_or(rounded, words, out=rounded)
    np.copyto(out, rounded, casting="unsafe")
    if dtype is DType.F16 and signs is not None:
        wide = scratch.take("gather", values.shape, np.int16)
        np.copyto(wide, signs)
        np.bitwise_and(wide, -0x8000, out=wide)
        np.bitwise_or(out, wide.view(np.uint16), out=out)


def shift_rounded(words: NDArray[np.uint32], width: int, out: NDArray[np.uint32]) -> None:
    """Words shifted right, rounded half to even; none may overflow."""
    np.right_shift(words, width, out=out)
    np.bitwise_and(out, 1, out=out)
    np.add(out, words, out=out)
    np.add(out, (1 << (width - 1)) - 1, out=out)
    np.right_shift(out, width, out=out)


def narrow(values: NDArray[np.float32], dtype: DType, out: NDArray[Any], scratch: Scratch) -> None:
    """Round values to `dtype`; destroys `values`. None may overflow."""
    if dtype is not DType.F16:
        gather(values, dtype, out, scratch)
        return
    spare = scratch.take("narrow", values.shape, np.float32)
    # Below 2**-14 this product rounds, and gather would round again: those are done over.
    np.multiply(values, 1 / UNIT[dtype], out=spare)
    gather(spare, dtype, out, scratch)
    halves = scratch.take("narrow.halves", values.shape, np.uint16)
    np.bitwise_and(out, 0x7FFF, out=halves)
    small = np.less(halves, 0x401)
    if np.count_nonzero(small) > small.size // MANY:
        np.logical_and(small, values, out=small)  # 0 is right as it is
    patch(values, small, _small_halves, out)


def patch(
    values: NDArray[np.float32],
    small: NDArray[np.bool_],
    precise: Callable[[NDArray[np.float32]], NDArray[Any]],
    out: NDArray[Any],
) -> None:
    """out = precise(values) where they are small: few elements of usual data."""
    if np.count_nonzero(small) > small.size // MANY:
        np.copyto(out, precise(values), where=small, casting="unsafe")
    elif (places := np.flatnonzero(small)).size:
        np.put(out, places, precise(values.reshape(-1)[places]))


def _small_halves(values: NDArray[np.float32]) -> NDArray[Any]:
    # One unit in the last place of 0.5 is 2**-24, the spacing of half-precision subnormals.
    return subnormals(values, np.float32(0.5), 16)


def subnormals(values: NDArray[np.float32], magic: np.float32, width: int) -> NDArray[Any]:
    """Small values in a format of so many bits, whose subnormals lie a unit of `magic` apart."""
    words = (np.abs(values) + magic).view(np.uint32) - magic.view(np.uint32)
    signs = values.view(np.uint32) >> (32 - width) & (1 << (width - 1))
    return (words | signs).astype(f"<u{width // 8}")


def convert(
    bits: NDArray[Any], source: DType, target: DType, out: NDArray[Any], scratch: Scratch
) -> None:
    """Any bits of one dtype as bits of another; CodecError where a finite number overflows.

    Infinities stay; a NaN keeps its sign and the payload bits that fit, and becomes quiet.
    """
    if source is target:
        np.copyto(out, bits)
        return
    values = scratch.take("convert", bits.shape, np.float32)
    special = (bits & MAGNITUDE[source]) >= INFINITY[source]
    finite = np.where(special, 0, bits).astype(source.bits)
    widen(finite, source, values)
    if target is not DType.F32 and bool((np.abs(values) >= np.float32(OVERFLOW[target])).any()):
        raise CodecError("E501", f"a {source} number is beyond the largest finite {target}")
    if not special.any():
        narrow(values, target, out, scratch)
        return
    wide = _wide_special(bits, source)
    narrow(values, target, out, scratch)
    np.copyto(out, _narrow_special(wide, target), where=special, casting="unsafe")


def _wide_special(bits: NDArray[Any], source: DType) -> NDArray[Any]:
    """Infinities and NaN as float32 bits; what other elements become is meaningless."""
    words: NDArray[Any] = bits.astype(np.uint32)
    if source is DType.BF16:
        words <<= 16
    elif source is DType.F16:
        words = (words & 0x8000) << 16 | 0x7F800000 | (words & 0x3FF) << 13
    return np.where(words & 0x7FFFFF, words | _QUIET, words).astype(np.uint32)


def _narrow_special(words: NDArray[Any], target: DType) -> NDArray[Any]:
    if target is DType.F32:
        return words
    if target is DType.BF16:
        return words >> 16
    return words >> 16 & 0x8000 | 0x7C00 | words >> 13 & 0x3FF

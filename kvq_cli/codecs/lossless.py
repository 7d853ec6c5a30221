"""lossless: the source bits, arranged so that an order-0 entropy coder finds them short.

Spec: formats/codecs/lossless.md, revision 1.

Sign and exponent of a cache are short given their channel, mantissas are not. So each word is
cut into byte planes, and what is short is taken relative to a reference: one byte per head
and channel, made of the rounded mean of the magnitudes' leading bits and of the majority sign.

    F16     high       sign, exponent, 2 mantissa bits, minus the reference, modulo 256
            low        the other 8 mantissa bits
    BF16    exponents  exponent minus the reference, plus BIAS: its low 4 bits, two to a byte
            escapes    its high 4 bits, two to a byte, nearly always 0
            mantissa0  sign, exclusive or the reference's, and 7 mantissa bits
    F32     as BF16, then mantissa1 and mantissa2

Two channels share a byte because a plane of exponents alone has so little in it that zstd
finds chance repeats, whose price is above that of Huffman codes.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec
from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import convert
from kvq_cli.numerics.exact import count_sum
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import Tile, part, tiles
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record

# Shorter pages have one reference per head: one per channel would cost more than it saves.
CHANNEL_TOKENS: Final = 24
SAMPLE: Final = 128  # tokens that a reference is made of; more cost time and gain a thousandth
BIAS: Final = 11  # a reference's exponents lie from 11 below to 4 above, or escape
BASE: Final = 64  # references of wide exponents go from 64 to 191, in 7 bits


@record
class Lossless(Codec):
    """No parameters."""

    name: ClassVar[str] = "lossless"
    revision: ClassVar[int] = 1
    lossless: ClassVar[bool] = True

    def layout(self, spec: PageSpec) -> Layout:
        heads, tokens, channels = spec.shape
        alone = tokens < CHANNEL_TOKENS
        planes = [Plane("reference", "|u1", (heads, 1, 1 if alone else channels), "H1D")]
        if spec.dtype is DType.F16:
            names = ["high", "low"]
        else:
            pairs = (heads, tokens, (channels + 1) // 2)
            planes += [Plane(name, "|u1", pairs, "HTP") for name in ("exponents", "escapes")]
            names = [f"mantissa{at}" for at in range(spec.dtype.size - 1)]
        planes += [Plane(name, "|u1", spec.shape, "HTD") for name in names]
        return tuple(planes)

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        spec = page.spec
        planes = {
            plane.name: scratch.take(f"planes.{plane.name}", plane.shape, np.uint8)
            for plane in self.layout(spec)
        }
        if spec.dtype is DType.F16:
            for tile in tiles(spec.shape):
                _cut_half(page.bits[tile], _parts(planes, tile), scratch)
            _refer(planes["high"], planes["high"], planes["reference"], 0x7F)
            np.subtract(planes["high"], planes["reference"], out=planes["high"])
            return planes
        padded = (spec.heads, spec.tokens, spec.channels + spec.channels % 2)
        codes = scratch.take("codes", padded, np.uint8)
        exponents = codes[..., : spec.channels]
        for tile in tiles(spec.shape):
            _cut_wide(page.bits[tile], exponents[tile], _parts(planes, tile), scratch)
        _refer(exponents, planes["mantissa0"], planes["reference"], 0xFF)
        codes[..., spec.channels :] = 0
        for tile in tiles(spec.shape):
            _fold(codes[tile], _parts(planes, tile), scratch)
        return planes

    def check(self, planes: Planes, spec: PageSpec) -> None:
        """All bytes are codes; half a byte of padding is checked where it is unfolded."""

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        join = _join_half if spec.dtype is DType.F16 else _join_wide
        for tile in tiles(spec.shape):
            pieces = _parts(planes, tile)
            restored = into.bits[tile]
            if into.spec.dtype is spec.dtype:
                join(pieces, restored, scratch)
                continue
            words = scratch.take("words", restored.shape, spec.dtype.bits)
            join(pieces, words, scratch)
            convert(words, spec.dtype, into.spec.dtype, restored, scratch)


def _parts(planes: Planes, tile: Tile) -> dict[str, NDArray[np.uint8]]:
    return {name: part(plane, tile) for name, plane in planes.items()}


def _refer(
    leading: NDArray[np.uint8], signs: NDArray[np.uint8], reference: NDArray[np.uint8], mask: int
) -> None:
    """Fill the reference plane from leading bits and from bytes with the sign on top."""
    tokens, channels = leading.shape[1:]
    step = -(-tokens // SAMPLE)
    count = -(-tokens // step)
    total = count_sum(leading[:, ::step] & mask, axis=1, largest=mask, dtype=np.uint16)
    minus = count_sum(signs[:, ::step] >> 7, axis=1, largest=1, dtype=np.uint8)
    if reference.shape[2] < channels:
        total = count_sum(total, axis=2, largest=mask * count, dtype=np.uint64)
        minus = count_sum(minus, axis=2, largest=count, dtype=np.uint64)
        count *= channels
    mean = (2 * total.astype(np.uint64) + count) // (2 * count)
    if mask == 0xFF:
        mean = np.clip(mean, BASE, BASE + 127) - BASE
    reference[...] = mean + (2 * minus.astype(np.uint64) > count) * np.uint64(128)


def _cut_half(words: NDArray[Any], planes: dict[str, NDArray[np.uint8]], scratch: Scratch) -> None:
    moved = scratch.take("moved", words.shape, np.uint16)
    np.right_shift(words, 8, out=moved)
    np.copyto(planes["high"], moved, casting="unsafe")
    np.copyto(planes["low"], words, casting="unsafe")


def _cut_wide(
    words: NDArray[Any],
    exponents: NDArray[np.uint8],
    planes: dict[str, NDArray[np.uint8]],
    scratch: Scratch,
) -> None:
    """The exponents, and the mantissa planes with the sign as it is."""
    moved = scratch.take("moved", words.shape, words.dtype)
    if words.dtype.itemsize == 4:
        np.copyto(planes["mantissa2"], words, casting="unsafe")
        np.right_shift(words, 8, out=moved)
        np.copyto(planes["mantissa1"], moved, casting="unsafe")
        words = scratch.take("words16", words.shape, np.uint16)
        np.right_shift(moved, 8, out=moved)
        np.copyto(words, moved, casting="unsafe")
        moved = scratch.take("moved16", words.shape, np.uint16)
    np.right_shift(words, 7, out=moved)
    np.copyto(exponents, moved, casting="unsafe")
    spare = scratch.take("spare16", words.shape, np.uint16)
    np.bitwise_and(words, 0x807F, out=spare)
    np.right_shift(spare, 8, out=moved)
    np.bitwise_or(spare, moved, out=spare)
    np.copyto(planes["mantissa0"], spare, casting="unsafe")


def _fold(codes: NDArray[np.uint8], planes: dict[str, NDArray[np.uint8]], scratch: Scratch) -> None:
    """Exponents and signs made relative; the low and high halves of two codes to a byte."""
    mantissa = planes["mantissa0"]
    np.bitwise_xor(mantissa, planes["reference"] & 0x80, out=mantissa)
    exponents = codes[..., : mantissa.shape[2]]
    np.subtract(exponents, _offset(planes), out=exponents)
    pairs = codes.view(np.dtype("<u2"))
    folded = scratch.take("folded", pairs.shape, np.uint16)
    moved = scratch.take("fold", pairs.shape, np.uint16)
    for name in ("exponents", "escapes"):
        np.bitwise_and(pairs, 0x0F0F, out=folded)
        np.right_shift(folded, 4, out=moved)
        np.bitwise_or(folded, moved, out=folded)
        np.copyto(planes[name], folded, casting="unsafe")
        np.right_shift(pairs, 4, out=pairs)


def _join_half(planes: dict[str, NDArray[np.uint8]], out: NDArray[Any], scratch: Scratch) -> None:
    high = scratch.take("leading", out.shape, np.uint8)
    np.add(planes["high"], planes["reference"], out=high)
    moved = scratch.take("moved", out.shape, np.uint16)
    np.copyto(moved, high)
    np.left_shift(moved, 8, out=moved)
    low = scratch.take("low", out.shape, np.uint16)
    np.copyto(low, planes["low"])
    np.bitwise_or(moved, low, out=out)


def _join_wide(planes: dict[str, NDArray[np.uint8]], out: NDArray[Any], scratch: Scratch) -> None:
    channels = out.shape[2]
    codes = scratch.take("codes", (*out.shape[:2], channels + channels % 2), np.uint8)
    pairs = codes.view("<u2")
    folded = scratch.take("folded", pairs.shape, np.uint16)
    _unfold(planes["escapes"], pairs, scratch)
    np.left_shift(pairs, 4, out=pairs)
    _unfold(planes["exponents"], folded, scratch)
    np.bitwise_or(pairs, folded, out=pairs)
    if codes[..., channels:].any():
        raise CodecError("E502", "lossless: the half byte after the last channel is not zero")
    leading = codes[..., :channels]
    np.add(leading, _offset(planes), out=leading)
    words = scratch.take("words16", out.shape, np.uint16)
    np.copyto(words, leading)
    np.left_shift(words, 7, out=words)
    mantissa = scratch.take("signs", out.shape, np.uint8)
    np.bitwise_xor(planes["mantissa0"], planes["reference"] & 0x80, out=mantissa)
    moved = scratch.take("moved16", out.shape, np.uint16)
    np.copyto(moved, mantissa)
    spare = scratch.take("spare16", out.shape, np.uint16)
    np.left_shift(moved, 8, out=spare)
    np.bitwise_or(moved, spare, out=moved)
    np.bitwise_and(moved, 0x807F, out=moved)
    if out.dtype.itemsize == 2:
        np.bitwise_or(words, moved, out=out)
        return
    np.bitwise_or(words, moved, out=words)
    np.copyto(out, words)
    np.left_shift(out, 8, out=out)
    wide = scratch.take("moved", out.shape, np.uint32)
    np.copyto(wide, planes["mantissa1"])
    np.bitwise_or(out, wide, out=out)
    np.left_shift(out, 8, out=out)
    np.copyto(wide, planes["mantissa2"])
    np.bitwise_or(out, wide, out=out)


def _offset(planes: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """What an exponent code lacks of the exponent, per head and channel."""
    offset: NDArray[np.uint8] = np.add(planes["reference"] & 0x7F, BASE - BIAS, dtype=np.uint8)
    return offset


def _unfold(packed: NDArray[np.uint8], pairs: NDArray[np.uint16], scratch: Scratch) -> None:
    np.copyto(pairs, packed)
    moved = scratch.take("fold", pairs.shape, np.uint16)
    np.left_shift(pairs, 4, out=moved)
    np.bitwise_or(pairs, moved, out=pairs)
    np.bitwise_and(pairs, 0x0F0F, out=pairs)

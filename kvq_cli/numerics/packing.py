"""packing: codes of 1 to 8 bits, without gaps.

Spec: formats/codecs/README.md, section "Packed codes".

    row    the bits of code 0, then of code 1, …, from the lowest bit of the first byte on;
           bits that no code fills are 0

Codes of 1, 2 or 4 bits are folded pair by pair: a pair is a 16-bit word, whose low byte is kept.
Those of 3, 5, 6 and 7 are folded in 64-bit words of eight codes, whose low bytes are kept.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.errors import CodecError
from kvq_cli.numerics.scratch import Scratch

_LANES: Final = (16, 32, 64)


def row_bytes(channels: int, bits: int) -> int:
    """Bytes of a packed row."""
    return -(-channels * bits // 8)


def take_codes(shape: tuple[int, ...], scratch: Scratch) -> NDArray[np.uint8]:
    """Codes (H, T, D) with room for whole words of eight: what lies behind D is zero."""
    heads, tokens, channels = shape
    whole = -(-channels // 8) * 8
    codes = scratch.take("packing.codes", (heads, tokens, whole), np.uint8)
    if whole > channels:
        codes[..., channels:] = 0
    return codes


def pack_codes(
    codes: NDArray[np.uint8], bits: int, out: NDArray[np.uint8], scratch: Scratch
) -> None:
    """Codes from `take_codes` into rows of bytes; they are used up."""
    if bits in (1, 2, 4, 8):
        while bits < 8:
            codes = _fold(codes, bits, scratch)
            bits *= 2
        np.copyto(out, codes[..., : out.shape[2]])
        return
    words = codes.view("<u8")
    spare = scratch.take("packing.spare", words.shape, np.uint64)
    for lane in _LANES:
        low, high, shift = _masks(lane, bits)
        np.right_shift(words, shift, out=spare)
        np.bitwise_and(spare, high, out=spare)
        np.bitwise_and(words, low, out=words)
        np.bitwise_or(words, spare, out=words)
    whole = out
    if out.shape[2] % bits:
        whole = scratch.take("packing.kept", (*words.shape[:2], words.shape[2] * bits), np.uint8)
    copy_bytes(
        words.view(np.uint8).reshape(*words.shape, 8), bits, whole.reshape(*words.shape, bits)
    )
    if whole is not out:
        np.copyto(out, whole[..., : out.shape[2]])


def unpack_codes(
    packed: NDArray[np.uint8], bits: int, channels: int, scratch: Scratch
) -> NDArray[np.uint8]:
    """The codes of rows of bytes, (H, T, D)."""
    codes = take_codes((*packed.shape[:2], channels), scratch)
    if bits in (1, 2, 4, 8):
        _unfold(packed, bits, codes, scratch)
    else:
        words = codes.view("<u8")
        kept = packed
        if packed.shape[2] % bits:
            kept = scratch.take("packing.kept", (*words.shape[:2], words.shape[2] * bits), np.uint8)
            kept[..., : packed.shape[2]] = packed
            kept[..., packed.shape[2] :] = 0
        words.fill(0)
        copy_bytes(kept.reshape(*words.shape, bits), bits, codes.reshape(*words.shape, 8))
        spare = scratch.take("packing.spare", words.shape, np.uint64)
        for lane in reversed(_LANES):
            low, high, shift = _masks(lane, bits)
            np.bitwise_and(words, high, out=spare)
            np.left_shift(spare, shift, out=spare)
            np.bitwise_and(words, low, out=words)
            np.bitwise_or(words, spare, out=words)
    return codes[..., :channels]


def check_padding(packed: NDArray[np.uint8], bits: int, channels: int, codec: str) -> None:
    """CodecError E502 where a bit that no code fills is set."""
    used = channels * bits % 8
    if used and bool((packed[..., -1] >> used).any()):
        raise CodecError("E502", f"{codec}: bits behind the last code of a row are not zero")


def copy_bytes(source: NDArray[np.uint8], count: int, target: NDArray[np.uint8]) -> None:
    """The first bytes of every word; all first ones, then all second ones: five times as fast."""
    for at in range(count):
        np.copyto(target[..., at], source[..., at])


def _masks(lane: int, bits: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """Of each lane the bits of its lower codes and of its upper ones when folded, and the way."""
    width = lane // 16 * bits
    ones = ((1 << 64) - 1) // ((1 << lane) - 1)  # the lowest bit of every lane
    low = ones * ((1 << width) - 1)
    return np.uint64(low), np.uint64(low << width), np.uint64(lane // 2 - width)


def _fold(codes: NDArray[np.uint8], bits: int, scratch: Scratch) -> NDArray[np.uint8]:
    pairs = codes.view("<u2")
    spare = scratch.take("packing.spare", pairs.shape, np.uint16)
    np.right_shift(pairs, 8 - bits, out=spare)
    np.bitwise_or(pairs, spare, out=pairs)
    folded = scratch.take(f"packing.{bits}", pairs.shape, np.uint8)
    np.copyto(folded, pairs, casting="unsafe")
    return folded


def _unfold(
    packed: NDArray[np.uint8], bits: int, codes: NDArray[np.uint8], scratch: Scratch
) -> None:
    """From bytes to half bytes, and so on down to codes."""
    width = 8
    while width > bits:
        width //= 2
        last = width == bits
        count = codes.shape[2] // 2 if last else packed.shape[2]
        unfolded = scratch.take(f"packing.{width}", (*packed.shape[:2], count), np.uint16)
        pairs = codes.view("<u2") if last else unfolded
        if count > packed.shape[2]:
            pairs[..., packed.shape[2] :] = 0
        spare = scratch.take("packing.spare", pairs.shape, np.uint16)
        np.copyto(pairs[..., : packed.shape[2]], packed[..., :count])
        np.left_shift(pairs, 8 - width, out=spare)
        np.bitwise_or(pairs, spare, out=pairs)
        np.bitwise_and(pairs, ((1 << width) - 1) * 0x0101, out=pairs)
        packed = pairs.view(np.uint8)
    if bits == 8:
        np.copyto(codes[..., : packed.shape[2]], packed)

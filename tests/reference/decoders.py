"""decoders: planes of raw, lossless and int8 pages to the bits of their elements.

Part of the reference reader: written from `formats/codecs/` alone, without kvq_cli.
A decoder takes the codec's parameters, the page's (H, T, D), its source dtype and the bytes
of its planes. `sizes` is the codec's layout, in bytes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from reference.refused import need

WIDTHS = {"F16": 2, "BF16": 2, "F32": 4}
LARGEST = {"F16": 0x477FE000, "BF16": 0x7F7F0000, "F32": 0x7F7FFFFF}  # as float32 bits
Spec = tuple[int, int, int]  # (H, T, D)


class Raw:
    """One plane: the bits."""

    def check(self, params: Any) -> None:
        need(params == {}, "raw and lossless have no parameters")

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        del params
        return (math.prod(spec) * WIDTHS[dtype],)

    def decode(self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes]) -> Any:
        del params
        return np.frombuffer(planes[0], f"<u{WIDTHS[dtype]}").reshape(spec)


class Lossless(Raw):
    """Bytes of words, their short parts taken relative to a reference."""

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        del params
        return tuple(math.prod(shape) for shape in self.shapes(spec, dtype))

    def shapes(self, spec: Spec, dtype: str) -> list[Spec]:
        heads, tokens, channels = spec
        shapes = [(heads, 1, channels if tokens >= 24 else 1)]
        if dtype != "F16":
            shapes += [(heads, tokens, (channels + 1) // 2)] * 2
        return shapes + [spec] * (WIDTHS[dtype] if dtype == "F16" else WIDTHS[dtype] - 1)

    def decode(self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes]) -> Any:
        del params
        reference, *arrays = (
            np.frombuffer(plane, "u1").reshape(shape).astype(np.uint32)
            for plane, shape in zip(planes, self.shapes(spec, dtype), strict=True)
        )
        if dtype == "F16":
            high, low = arrays
            return ((high + reference) % 256 << 8 | low).astype("<u2")
        exponents, escapes, signed, *rest = arrays
        codes = np.zeros((*spec[:2], 2 * exponents.shape[2]), np.uint32)
        codes[..., 0::2] = exponents % 16 | escapes % 16 << 4
        codes[..., 1::2] = exponents >> 4 | escapes >> 4 << 4
        need(not codes[..., spec[2] :].any(), "half byte after an odd last channel")
        exponent = (codes[..., : spec[2]] + (reference & 127) + (64 - 11)) % 256
        signed = signed ^ (reference & 128)
        words = (signed >> 7) << 15 | exponent << 7 | (signed & 127)
        for mantissa in rest:
            words = words << 8 | mantissa
        return words.astype(f"<u{WIDTHS[dtype]}")


class Int8:
    """Codes times scales, in float32, rounded to the source dtype half to even."""

    def check(self, params: Any) -> None:
        need(type(params) is dict and set(params) == {"axis", "scale"}, "int8 parameters")
        need(params["axis"] in ("token", "channel"), "int8 axis")
        need(params["scale"] in ("f32", "f16"), "int8 scale")

    def shape(self, params: Any, spec: Spec) -> Spec:
        heads, tokens, channels = spec
        return (heads, tokens, 1) if params["axis"] == "token" else (heads, 1, channels)

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        del dtype
        width = {"f32": 4, "f16": 2}[params["scale"]]
        return math.prod(self.shape(params, spec)) * width, math.prod(spec)

    def decode(self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes]) -> Any:
        scales = np.frombuffer(planes[0], "<f4" if params["scale"] == "f32" else "<f2")
        codes = np.frombuffer(planes[1], "i1").reshape(spec)
        largest = np.array(LARGEST[dtype], "<u4").view("<f4")
        most = largest / np.float32(127)
        if params["scale"] == "f16":
            most = min(most, np.float32(65504)).astype("<f2")
        words = scales.view(f"<u{scales.itemsize}")
        need(words.max() <= most.view(words.dtype), "a scale that no encoder writes")
        need(codes.min() > -128, "a code of -128")
        wide = scales.astype("<f4").reshape(self.shape(params, spec))
        with np.errstate(over="ignore"):
            values = np.clip(codes.astype("<f4") * wide, -largest, largest)
        return narrow(values, dtype)


def narrow(values: Any, dtype: str) -> Any:
    """Bits of finite float32 values in a dtype, rounded half to even, kept finite."""
    if dtype == "F16":
        return values.astype("<f2").view("<u2")
    bits = values.view("<u4")
    if dtype == "F32":
        return bits
    return ((bits.astype(np.uint64) + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


CODECS: dict[tuple[str, int], Any] = {
    ("raw", 1): Raw(),
    ("lossless", 1): Lossless(),
    ("int8", 1): Int8(),
}

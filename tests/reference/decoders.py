"""decoders: planes of an encoded page to the bits of its elements, in their own dtype.

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
from reference.restoring import WIDTHS, check_scales, largest_scale, restored
from reference.rotating import Fibquant, Mse, Prod
from reference.transforming import Transform

__all__ = ["CODECS", "WIDTHS", "fits", "tables_of"]

SCALES = {"f32": "<f4", "f16": "<f2"}
NAMES = ("norms", "indices")
Spec = tuple[int, int, int]  # (H, T, D)
Layout = dict[str, tuple[str, Spec]]  # dtype and shape of each plane, in order


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


class Bytes:
    """A number for each of 256 codes, times the scale of its row."""

    def __init__(self, numbers: Sequence[float], largest: float, **allowed: Sequence[Any]) -> None:
        # A code that no encoder writes has no number.
        self.table = np.array([n if abs(n) <= largest else math.nan for n in numbers], "<f4")
        self.largest = largest
        self.allowed = {"scale": ("f32", "f16"), "center": (False, True), **allowed}

    def check(self, params: Any) -> None:
        check_params(params, self.allowed)

    def layout(self, params: Any, spec: Spec, dtype: str) -> Layout:
        heads, tokens, channels = spec
        rows = (heads, 1, channels) if params.get("axis") == "channel" else (heads, tokens, 1)
        scales = {"scales": (SCALES[params["scale"]], rows)}
        return {**center_planes(params, spec, dtype), **scales, "codes": ("u1", spec)}

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        return sizes_of(self.layout(params, spec, dtype))

    def decode(self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes]) -> Any:
        arrays = arrays_of(self.layout(params, spec, dtype), planes)
        numbers = self.table[arrays["codes"]]
        need(not np.isnan(numbers).any(), "a code that no encoder writes")
        check_scales(arrays["scales"], largest_scale(params, dtype, self.largest))
        return restored(numbers, arrays["scales"].astype("<f4"), arrays, dtype)


class Grid:
    """Packed codes on a grid per group, with zeros or with signed scales."""

    def __init__(self, **allowed: Sequence[Any]) -> None:
        self.allowed = {"scale": ("f32", "f16"), "group": (32, 64, 128), **allowed}

    def check(self, params: Any) -> None:
        check_params(params, self.allowed)

    def layout(self, params: Any, spec: Spec, dtype: str) -> Layout:
        heads, tokens, channels = spec
        axis, size = along(params), params["group"]
        groups = tuple(-(-n // size) if at == axis else n for at, n in enumerate(spec))
        packed = (heads, tokens, (channels * params.get("bits", 4) + 7) // 8)
        zeros = {"zeros": ("<i2", groups)} if params.get("zero_point", True) else {}
        scales = {"scales": (SCALES[params["scale"]], groups)}
        return {**center_planes(params, spec, dtype), **scales, **zeros, "codes": ("u1", packed)}

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        return sizes_of(self.layout(params, spec, dtype))

    def decode(self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes]) -> Any:
        arrays = arrays_of(self.layout(params, spec, dtype), planes)
        bits, scales = params.get("bits", 4), arrays["scales"]
        codes = unpacked(arrays["codes"], bits, spec[2]).astype(int)
        if "zeros" in arrays:
            need(abs(arrays["zeros"].astype(int)).max() <= 28687, "a zero that is too far")
            check_scales(scales, largest_scale(params, dtype, (2**bits - 1) / 2))
            numbers = 16 * codes + repeated(arrays["zeros"].astype(int), params, spec)
            factors = scales.astype("<f4") / np.float32(16)
            return restored(numbers, repeated(factors, params, spec), arrays, dtype)
        need(not (np.signbit(scales) & (scales == 0)).any(), "a scale of minus zero")
        check_scales(abs(scales), largest_scale(params, dtype, 2 ** (bits - 1)))
        numbers, factors = codes - 2 ** (bits - 1), repeated(scales.astype("<f4"), params, spec)
        # A product of zero is +0, whatever the signs.
        zero = (numbers == 0) | (factors == 0)
        return restored(np.where(zero, 0, numbers), np.where(zero, 0, factors), arrays, dtype)


class FibQuant:
    """A norm and indices of codewords a vector; rotation and codebook are tables."""

    def check(self, params: Any) -> None:
        names = {"dim", "block", "size", "rotation", "codebook", "profile", "axis"}
        need(type(params) is dict and set(params) == names, "codec parameters")
        for name, low, high in (("dim", 1, 4096), ("block", 1, 256), ("size", 2, 2**20)):
            value = params[name]
            need(type(value) is int and low <= value <= high, f"codec parameter {name}")
        need(params["dim"] % params["block"] == 0, "block does not divide dim")
        need(params["axis"] in ("token", "channel"), "codec parameter axis")
        for name in ("rotation", "codebook", "profile"):
            text = params[name]
            need(type(text) is str and len(text) == 71 and text[:7] == "blake3:", "not a digest")
            need(set(text[7:]) <= set("0123456789abcdef"), "not a digest")

    def tables(self, params: Any) -> list[Any]:
        d, codewords = params["dim"], [params["size"], params["block"]]
        rotation = {"dtype": "<f8", "shape": [d, d], "digest": params["rotation"]}
        return [rotation, {"dtype": "<f4", "shape": codewords, "digest": params["codebook"]}]

    def layout(self, params: Any, spec: Spec, dtype: str) -> dict[str, tuple[str, Any]]:
        del dtype
        heads, tokens, channels = spec
        need(channels == params["dim"], "channels are not those of the rotation")
        groups, rest = self.split(params, tokens)
        row = (self.width(params) * (channels // params["block"]) + 7) // 8
        planes: dict[str, tuple[str, Any]] = {}
        if groups:
            planes["channel_norms"] = "<u2", (heads, groups, channels)
            planes["channel_indices"] = "u1", (heads, groups, channels, row)
        if rest:
            planes |= {"norms": ("<u2", (heads, rest)), "indices": ("u1", (heads, rest, row))}
        return planes

    def sizes(self, params: Any, spec: Spec, dtype: str) -> tuple[int, ...]:
        return sizes_of(self.layout(params, spec, dtype))

    def split(self, params: Any, tokens: int) -> tuple[int, int]:
        """Groups of d tokens, and tokens that are left."""
        return divmod(tokens, params["dim"]) if params["axis"] == "channel" else (0, tokens)

    def width(self, params: Any) -> int:
        return (params["size"] - 1).bit_length()

    def decode(
        self, params: Any, spec: Spec, dtype: str, planes: Sequence[bytes], *tables: Any
    ) -> Any:
        arrays = arrays_of(self.layout(params, spec, dtype), planes)
        for table in tables:
            need(bool((abs(table) <= 2).all()), "a table that no encoder has")
        out, done = np.empty(spec, "<f4"), 0
        if "channel_norms" in arrays:
            found = self.vectors(params, *(arrays[f"channel_{n}"] for n in NAMES), *tables)
            done = found.shape[1] * spec[2]
            out[:, :done] = found.swapaxes(2, 3).reshape(spec[0], done, spec[2])
        if "norms" in arrays:
            out[:, done:] = self.vectors(params, *(arrays[name] for name in NAMES), *tables)
        return restored(out, np.float32(1), {}, dtype)

    def vectors(self, params: Any, norms: Any, rows: Any, rotation: Any, words: Any) -> Any:
        """The restored vectors, along the last axis, in float32."""
        need(norms.max() < 0x7C00, "a norm that no encoder writes")
        width, count = self.width(params), params["dim"] // params["block"]
        bits = np.unpackbits(rows, axis=-1, bitorder="little")
        need(not bits[..., width * count :].any(), "a bit behind the last index")
        bits = bits[..., : width * count].reshape(*norms.shape, count, width)
        indices = (bits.astype(int) << np.arange(width)).sum(axis=-1)
        need(indices.max() < params["size"], "an index beyond the codebook")
        need(not indices[norms == 0].any(), "a norm of 0 with indices")
        turned = words[indices].astype(float).reshape(*norms.shape, params["dim"])
        total = np.zeros(turned.shape)
        for row in range(params["dim"]):
            total = total + turned[..., row, None] * rotation[row]
        vectors = (total * norms.view("<f2").astype(float)[..., None]).astype("<f4")
        return np.where((norms == 0)[..., None], np.float32(0), vectors)


def check_params(params: Any, allowed: dict[str, Sequence[Any]]) -> None:
    need(type(params) is dict and set(params) == set(allowed), "codec parameters")
    for name, values in allowed.items():
        same = [type(params[name]) is type(one) and params[name] == one for one in values]
        need(any(same), f"codec parameter {name}")


def center_planes(params: Any, spec: Spec, dtype: str) -> Layout:
    heads, tokens, channels = spec
    means = {"means": (f"<u{WIDTHS[dtype]}", (heads, 1, channels))}
    centred = {"centred": ("u1", (heads, tokens, 1))} if along(params) == 2 else {}
    return {**means, **centred} if params.get("center") else {}


def sizes_of(layout: Layout) -> tuple[int, ...]:
    return tuple(math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout.values())


def arrays_of(layout: Layout, planes: Sequence[bytes]) -> dict[str, Any]:
    named = zip(layout.items(), planes, strict=True)
    return {name: np.frombuffer(one, kind).reshape(shape) for (name, (kind, shape)), one in named}


def along(params: Any) -> int:
    """The axis that groups lie along: channels of a token, or tokens of a channel."""
    return 1 if params.get("axis") == "channel" else 2


def repeated(groups: Any, params: Any, spec: Spec) -> Any:
    """What there is one of per group, for each element."""
    return np.repeat(groups, params["group"], axis=along(params))[:, : spec[1], : spec[2]]


def unpacked(packed: Any, width: int, channels: int) -> Any:
    bits = np.unpackbits(packed, axis=2, bitorder="little")
    need(not bits[..., channels * width :].any(), "a bit behind the last code")
    codes = bits[..., : channels * width].reshape(*packed.shape[:2], channels, width)
    return np.packbits(codes, axis=3, bitorder="little")[..., 0]


def float8(mantissa: int, bias: int) -> list[float]:
    """The numbers of all codes, as if none were infinite or NaN."""
    numbers = []
    for code in range(128):
        exponent, fraction = divmod(code, 2**mantissa)
        if exponent:
            fraction += 2**mantissa
        numbers.append(math.ldexp(fraction, max(exponent, 1) - bias - mantissa))
    return numbers + [-one for one in numbers]


def fits(decoder: Any, params: Any, spec: Spec, dtype: str, packed: Sequence[int]) -> bool:
    """Whether planes of a page may have these lengths: one each, but of open planes."""
    if hasattr(decoder, "fits"):
        return bool(decoder.fits(params, spec, dtype, packed))
    return tuple(packed) == decoder.sizes(params, spec, dtype)


def tables_of(codec: Any) -> list[Any]:
    """The tables that a codec's parameters name, as the header must have them."""
    decoder = CODECS[codec["name"], codec["revision"]]
    return decoder.tables(codec["params"]) if hasattr(decoder, "tables") else []


CODECS: dict[tuple[str, int], Any] = {
    ("raw", 1): Raw(),
    ("lossless", 1): Lossless(),
    ("int8", 1): Bytes([*range(128), *range(-128, 0)], 127, axis=("token", "channel")),
    ("fp8_e4m3", 1): Bytes(float8(mantissa=3, bias=7), 448),
    ("fp8_e5m2", 1): Bytes(float8(mantissa=2, bias=15), 57344),
    ("int4", 1): Grid(zero_point=(False, True), center=(False, True)),
    ("fib_quant", 1): FibQuant(),
    ("kivi", 1): Grid(bits=(2, 3, 4, 8), axis=("token", "channel")),
    ("fibquant", 1): Fibquant(),
    ("turboquant_mse", 1): Mse(),
    ("turboquant_prod", 1): Prod(),
    ("transform", 1): Transform(),
}

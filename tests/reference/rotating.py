"""rotating: the codecs of rotated rows, and the matrices and levels they stand on.

Part of the reference reader: written from `formats/codecs/` alone, without kvq_cli. Matrices
are written out whole and multiplied in 64-bit integers.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from blake3 import blake3
from reference.refused import need
from reference.restoring import restored_twice

FORMATS = Path(__file__).parents[2] / "formats"
LEVELS = FORMATS / "tables" / "levels.bin"
ORDERS = (32, 64, 80, 96, 128, 192, 256)
BOOKS = ((2, 64), (2, 256), (4, 32), (4, 256), (4, 1024), (4, 4096), (8, 256), (16, 256))
SCALES = {"f32": "<f4", "f16": "<f2"}


def is_prime(number: int) -> bool:
    return number > 1 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


def conference(prime: int, below: int) -> Any:
    squares = {number**2 % prime for number in range(1, prime)}
    rows = [[0] + [1] * prime]
    for i in range(prime):
        row = [below]
        for j in range(prime):
            step = (j - i) % prime
            row.append(0 if step == 0 else 1 if step in squares else -1)
        rows.append(row)
    return np.array(rows)


@cache
def hadamard(order: int) -> Any:
    """H(N), or None."""
    side = order & -order
    side = order // side
    while side <= order:
        found = None
        if side == 1:
            found = np.array([[1]])
        elif side % 4 == 0 and is_prime(side - 1):
            found = np.eye(side, dtype=int) + conference(side - 1, -1)
        elif side % 4 == 0 and side // 2 % 4 == 2 and is_prime(side // 2 - 1):
            core = conference(side // 2 - 1, 1)
            found = np.kron(core, [[1, 1], [1, -1]])
            found = found + np.kron(np.eye(len(core), dtype=int), [[1, -1], [-1, -1]])
        if found is not None:
            while len(found) < order:
                found = np.kron([[1, 1], [1, -1]], found)
            return found
        side *= 2
    return None


def order_of(channels: int) -> int:
    order = -(-channels // 8) * 8
    while hadamard(order) is None:
        order += 8
    return order


def drawn(purpose: str, seed: int, order: int, count: int) -> bytes:
    words = seed.to_bytes(8, "little") + order.to_bytes(8, "little")
    return blake3(purpose.encode() + b"\0" + words).digest(count)


@cache
def signed(order: int, seed: int, purpose: str) -> Any:
    """H(N) · diag(s)."""
    data = drawn(purpose, seed, order, order // 8)
    signs = [1 - 2 * (data[at // 8] >> at % 8 & 1) for at in range(order)]
    return hadamard(order) * np.array(signs)


def halves(numbers: Any) -> Any:
    while len(numbers) > 1:
        half = len(numbers) // 2
        numbers = np.concatenate([numbers[:half] + numbers[half : 2 * half], numbers[2 * half :]])
    return numbers[0]


@cache
def dense(order: int, seed: int) -> Any:
    """M: nearly normal numbers made orthogonal, in units of 2**-24."""
    data = drawn("kvq/v1/rotation", seed, order, 32 * order * order)
    counts = [
        int.from_bytes(data[at : at + 32], "little").bit_count() - 128
        for at in range(0, len(data), 32)
    ]
    rows = np.array(counts, float).reshape(order, order)
    for _ in range(2):
        for i in range(order):
            rows[i] = rows[i] / np.sqrt(halves(rows[i] * rows[i]))
            for k in range(i + 1, order):
                rows[k] = rows[k] - halves(rows[k] * rows[i]) * rows[i]
    return np.rint(rows * 2.0**24).astype(np.int64)


def levels_of(codes: Any, order: int, bits: int) -> Any:
    table = np.frombuffer(LEVELS.read_bytes(), "<i2").reshape(80, 255)[order // 8 - 1]
    positive = table[2 ** (bits - 1) - 1 :][: 2 ** (bits - 1)].astype(np.int64)
    middle = 2 ** (bits - 1)
    return np.where(
        codes >= middle,
        positive[abs(codes - middle) % middle],
        -positive[(middle - 1 - codes) % middle],
    )


@cache
def codewords(order: int, block: int, size: int) -> Any:
    """Every codeword, from the bases and the symmetry that a file states."""
    stored = json.loads((FORMATS / "codebooks" / f"{block}-{size}.json").read_text())
    found = []
    for base in stored["books"][str(order)]["bases"]:
        found += orbit(base, stored["runs"])
    words = np.array(found, "<i2")
    head = np.array([block, size, stored["grid"]], "<u4").tobytes()
    name = blake3(b"kvq_codebook_v1\0" + head + words.tobytes()).hexdigest()
    need(f"blake3:{name}" == stored["books"][str(order)]["digest"], "a codebook's digest")
    return words.astype(np.int64), 1 << stored["grid"]


def orbit(base: list[int], runs: list[int]) -> list[tuple[int, ...]]:
    """All orders within runs, larger first; all signs, + first."""
    if not runs:
        return [tuple(base)]
    at, orders = 0, []
    for length in runs:
        run = base[at : at + length]
        orders.append(sorted(set(itertools.permutations(run)), reverse=True))
        at += length
    found = []
    for parts in itertools.product(*orders):
        magnitudes = [number for part in parts for number in part]
        signs = [(1, -1) if number else (1,) for number in magnitudes]
        found += [
            tuple(n * s for n, s in zip(magnitudes, chosen, strict=True))
            for chosen in itertools.product(*signs)
        ]
    return found


def unpacked(packed: Any, width: int, count: int | None = None) -> Any:
    bits = np.unpackbits(packed, axis=2, bitorder="little")
    if count is not None:
        need(not bits[..., count * width :].any(), "a bit behind the last code")
        bits = bits[..., : count * width]
    codes = np.packbits(bits.reshape(*packed.shape[:2], -1, width), axis=3, bitorder="little")
    return codes[..., 0].astype(np.int64)


class Rotated:
    """What the codecs share."""

    strings: ClassVar = ()
    allowed: ClassVar[dict[str, Sequence[Any]]]

    def check(self, params: Any) -> None:
        names = {"seed", *self.allowed, *self.strings}
        need(type(params) is dict and set(params) == names, "codec parameters")
        need(type(params["seed"]) is int and 0 <= params["seed"] < 2**63, "seed")
        for name, values in self.allowed.items():
            same = [type(params[name]) is type(one) and params[name] == one for one in values]
            need(any(same), f"codec parameter {name}")

    def layout(self, params: Any, spec: Any, dtype: str) -> dict[str, tuple[str, Any]]:
        heads, tokens, channels = spec
        found: dict[str, tuple[str, Any]] = {}
        if params["center"]:
            word = "<u4" if dtype == "F32" else "<u2"
            found = {"means": (word, (heads, 1, channels)), "centred": ("u1", (heads, tokens, 1))}
        found["norms"] = (SCALES[params["norm"]], (heads, tokens, 1))
        for name, (kind, length) in self.coded(params, self.order(params, channels)).items():
            found[name] = (kind, (heads, tokens, length))
        return found

    def order(self, params: Any, channels: int) -> int:
        del params
        return order_of(channels) if channels <= 640 else -(-channels // 16) * 16

    def most(self, params: Any) -> int:
        del params
        return 640

    def coded(self, params: Any, order: int) -> dict[str, tuple[str, int]]:
        raise NotImplementedError

    def vectors(self, params: Any, arrays: Any, order: int, *tables: Any) -> tuple[Any, int]:
        raise NotImplementedError

    def sizes(self, params: Any, spec: Any, dtype: str) -> tuple[int, ...]:
        layout = self.layout(params, spec, dtype)
        return tuple(math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout.values())

    def decode(
        self, params: Any, spec: Any, dtype: str, planes: Sequence[bytes], *tables: Any
    ) -> Any:
        named = zip(self.layout(params, spec, dtype).items(), planes, strict=True)
        arrays = {name: np.frombuffer(one, kind).reshape(at) for (name, (kind, at)), one in named}
        need(spec[2] <= self.most(params), "more channels than can be rotated")
        order = self.order(params, spec[2])
        norms = arrays["norms"]
        need(bool(np.isfinite(norms).all()) and not np.signbit(norms).any(), "a norm")
        vectors, unit = self.vectors(params, arrays, order, *tables)
        if params["rotation"] == "hadamard":
            back = vectors @ signed(order, params["seed"], "kvq/v1/rotation")
            share = 1 / order
        else:
            back = vectors @ dense(order, params["seed"])
            share = 1 / (2.0**24 * math.sqrt(order))
        numbers = back.astype("<f4")[..., : spec[2]]
        return restored_twice(
            numbers, norms.astype("<f4") * np.float32(share / unit), arrays, dtype
        )


class Mse(Rotated):
    """Levels alone."""

    allowed: ClassVar = {
        "bits": tuple(range(1, 9)),
        "rotation": ("hadamard", "haar"),
        "norm": ("f16", "f32"),
        "norm_correction": (True, False),
        "center": (True, False),
    }

    def coded(self, params: Any, order: int) -> dict[str, tuple[str, int]]:
        return {"codes": ("u1", order * params["bits"] // 8)}

    def vectors(self, params: Any, arrays: Any, order: int, *tables: Any) -> tuple[Any, int]:
        del tables
        return levels_of(unpacked(arrays["codes"], params["bits"]), order, params["bits"]), 4096


class Prod(Rotated):
    """Levels, and the signs of what they missed."""

    allowed: ClassVar = {
        "bits": (2, 3, 4, 5),
        "rotation": ("hadamard", "haar"),
        "norm": ("f16", "f32"),
        "center": (True, False),
    }

    def coded(self, params: Any, order: int) -> dict[str, tuple[str, int]]:
        codes = ("u1", order * (params["bits"] - 1) // 8)
        return {"residuals": ("<f2", 1), "codes": codes, "signs": ("u1", order // 8)}

    def vectors(self, params: Any, arrays: Any, order: int, *tables: Any) -> tuple[Any, int]:
        del tables
        residuals = arrays["residuals"]
        need(bool((residuals.view("<u2") <= 0x4000).all()), "a residual")
        bits = params["bits"] - 1
        levels = levels_of(unpacked(arrays["codes"], bits), order, bits)
        held = np.rint(levels / 4).astype(np.int64)
        turned = 2 * unpacked(arrays["signs"], 1) - 1
        for number in (2, 1):
            turned = turned @ signed(order, params["seed"], f"kvq/v1/sketch/{number}")
        mean = 2 / math.pi
        for n in range(2, order, 2):
            mean = mean * n / (n + 1)
        root = math.sqrt(order)
        part = np.float32(1024 / (root * mean) / root / root)
        missed = np.rint(turned.astype("<f4") * (residuals.astype("<f4") * part))
        return held + missed.astype(np.int64), 1024


class Fibquant(Rotated):
    """Codewords of blocks, of a codebook that is known or a table."""

    strings: ClassVar = ("codebook",)
    allowed: ClassVar = {
        "block": tuple(2**n for n in range(1, 7)),
        "size": tuple(2**n for n in range(1, 17)),
        "rotation": ("hadamard", "haar"),
        "norm": ("f16", "f32"),
        "norm_correction": (True, False),
        "center": (True, False),
    }

    def check(self, params: Any) -> None:
        super().check(params)
        book = params["codebook"]
        if book == "builtin":
            need((params["block"], params["size"]) in BOOKS, "a codebook")
        else:
            need(type(book) is str and bool(re.fullmatch("blake3:[0-9a-f]{64}", book)), "codebook")

    def tables(self, params: Any) -> list[Any]:
        if params["codebook"] == "builtin":
            return []
        shape = [params["size"], params["block"]]
        return [{"dtype": "<i2", "shape": shape, "digest": params["codebook"]}]

    def most(self, params: Any) -> int:
        return 256 if params["codebook"] == "builtin" else 640

    def order(self, params: Any, channels: int) -> int:
        if channels > self.most(params):
            return -(-channels // 16) * 16
        if params["codebook"] == "builtin":
            return min(order for order in ORDERS if order >= channels)
        order = order_of(channels)
        while order % params["block"]:
            order = order_of(order + 1)
        return order

    def coded(self, params: Any, order: int) -> dict[str, tuple[str, int]]:
        blocks, bits = order // params["block"], int(math.log2(params["size"]))
        found = {"codes": ("u1", (blocks * min(bits, 8) + 7) // 8)}
        if bits > 8:
            found["tops"] = ("u1", (blocks * (bits - 8) + 7) // 8)
        return found

    def vectors(self, params: Any, arrays: Any, order: int, *tables: Any) -> tuple[Any, int]:
        blocks, bits = order // params["block"], int(math.log2(params["size"]))
        indices = unpacked(arrays["codes"], min(bits, 8), blocks)
        if bits > 8:
            indices = indices + 256 * unpacked(arrays["tops"], bits - 8, blocks)
        if tables:
            words = tables[0].astype(np.int64)
            need(int(abs(words).max()) <= 4096, "a coordinate of a codeword")
            unit = 1 << (7 if params["block"] <= 2 else 6 if params["block"] <= 8 else 5)
        else:
            words, unit = codewords(order, params["block"], params["size"])
        return words[indices].reshape(*indices.shape[:2], order), unit

"""fib_quant: both axes, indices of 3, 4, 8 and 9 bits, norms at their limits, and damage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from codec_vectors.recipe import SIZE_NOTES, Case, Group, misfits, pattern, replaced, words
from numpy.typing import NDArray

from kvq_cli.contract.compat.rotation import rotation
from kvq_cli.page import DType, PageSpec
from kvq_cli.planes import table_spec

NOTES = {
    **SIZE_NOTES,
    "Zero": "a vector of zeros has norm 0 and indices 0; with others it is refused",
    "Norm": "a norm that is negative, infinite or NaN, or that f16 cannot hold",
    "Subnormal": "a norm below the smallest normal f16",
    "NonFinite": "infinity and NaN are refused",
    "Index": "an index beyond the codebook",
    "Padding": "a bit behind the last index",
    "Width": "indices of 3, 4, 8 and 9 bits",
    "Largest": "beyond the largest number of the page's own dtype",
    "Overflow": "beyond the largest number of another dtype",
    "Convert": "restored to another dtype",
    "Shape": "groups of d tokens, and tokens that are left",
}
DIM = 8
TEXT = "blake3:" + "0" * 64
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"dim": 0}, "/dim"),
    ({"dim": 4097}, "/dim"),
    ({"dim": 8.0}, "/dim"),
    ({"block": 0}, "/block"),
    ({"block": 257}, "/block"),
    ({"size": 1}, "/size"),
    ({"size": 1048577}, "/size"),
    ({"axis": "row"}, "/axis"),
    ({"axis": None}, "/axis"),
    ({"rotation": None}, "/rotation"),
    ({"rotation": "blake3:" + "0" * 63}, "/rotation"),
    ({"codebook": "blake3:" + "A" * 64}, "/codebook"),
    ({"profile": ""}, "/profile"),
    ({"bits": 4}, "/bits"),
    ({"dim": 8, "block": 3, "size": 4, "rotation": TEXT, "codebook": TEXT, "profile": TEXT}, ""),
]


@cache
def turn() -> NDArray[np.float64]:
    return rotation(DIM, 13).matrix


@cache
def book(size: int, block: int) -> NDArray[np.float32]:
    """Codewords on a grid of 64ths, no two alike: nobody trained them."""
    numbers = np.arange(size * block, dtype=np.int64) * 37 + size
    return ((numbers % 101 - 50) / 64).astype("<f4").reshape(size, block)


BOOKS = [(8, 2), (5, 4), (256, 2), (300, 4), (16, 1)]


def tables() -> list[NDArray[Any]]:
    return [turn(), *(book(*each) for each in BOOKS)]


def params(size: int, block: int, axis: str = "token") -> dict[str, Any]:
    digests = [table_spec(table).digest for table in (turn(), book(size, block))]
    members = {"dim": DIM, "block": block, "size": size, "axis": axis, "profile": TEXT}
    return {**members, "rotation": digests[0], "codebook": digests[1]}


def natural(spec: PageSpec) -> NDArray[Any]:
    return words(spec, (((i * i * 7) % 83 - 41) / 16 for i in range(spec.elements)))


def groups() -> list[Group]:
    found = []
    for (size, block), dtype in zip(BOOKS, [*DType, *DType], strict=False):
        found.append(_main(params(size, block), PageSpec(2, 3, DIM, dtype)))
    return [*found, *_channels(), *_limits()]


def _main(members: dict[str, Any], spec: PageSpec) -> Group:
    """A page that goes both ways, and damage to it."""
    page = natural(spec)
    zero = page.copy()
    zero[0, 1], zero[1, 2] = 0, 1 << (8 * spec.dtype.size - 1)
    cases = [Case(["Width"], page), Case(["Zero"], zero)]
    cases += [Case(["Convert"], page, target=other) for other in DType if other is not spec.dtype]
    cases += [*_not_finite(spec, page), *misfits(["norms", "indices"])]
    cases += [
        Case(["Norm"], change=replaced("norms", 4, bits.to_bytes(2, "little")))
        for bits in (0x7C00, 0x7C01, 0x7E00, 0x7FFF, 0x8000, 0x8001, 0xBC00, 0xFC00, 0xFFFF)
    ]
    cases.append(Case(["Zero"], change=replaced("norms", 2, b"\0\0")))
    return Group(members, spec, [*cases, *_indices(members, spec)])


def _indices(members: dict[str, Any], spec: PageSpec) -> Iterator[Case]:
    width, count = (members["size"] - 1).bit_length(), DIM // members["block"]
    size = -(-count * width // 8)
    last = size * spec.heads * spec.tokens - 1
    for bit in range(count * width % 8, 8 if count * width % 8 else 0):
        yield Case(["Padding"], change=replaced("indices", last, bytes([1 << bit])))
    if members["size"] < 1 << width:
        for index in (members["size"], (1 << width) - 1):
            packed = (index << width * (count - 1)).to_bytes(size, "little")
            yield Case(["Index"], change=replaced("indices", size, packed))


def _not_finite(spec: PageSpec, page: NDArray[Any]) -> Iterator[Case]:
    infinity = {DType.F16: 0x7C00, DType.BF16: 0x7F80, DType.F32: 0x7F800000}[spec.dtype]
    for bits in (infinity, infinity + 1, infinity | 1 << (8 * spec.dtype.size - 1)):
        broken = page.copy()
        broken[1, 0, 3] = broken[1, 2, 0] = bits
        yield Case(["NonFinite"], broken)


def _channels() -> Iterator[Group]:
    """Groups alone, with a tail, and a tail alone."""
    for tokens, dtype in ((8, DType.F16), (19, DType.BF16), (7, DType.F32)):
        spec = PageSpec(2, tokens, DIM, dtype)
        page = natural(spec)
        page[0, :, 2] = 0
        names = (["channel_norms", "channel_indices"] if tokens >= DIM else []) + (
            ["norms", "indices"] if tokens % DIM else []
        )
        cases = [Case(["Shape"], page), *_not_finite(spec, natural(spec)), *misfits(names)]
        for name in names[::2]:
            cases += [
                Case(["Norm"], change=replaced(name, 0, bits.to_bytes(2, "little")))
                for bits in (0x7C00, 0x7E00, 0x8000)
            ]
            cases.append(Case(["Zero"], change=replaced(name, 0, b"\0\0")))
        yield Group(params(8, 2, "channel"), spec, cases)


def _limits() -> Iterator[Group]:
    """Norms around what f16 holds; a vector of one element has its magnitude for norm."""
    spec = PageSpec(1, 1, DIM, DType.F32)

    def single(value: float) -> NDArray[Any]:
        return words(spec, [value] + [0.0] * (DIM - 1))

    fits = (2.0**-14, 2.0**-24, 2.0**-25 * (1 + 2.0**-12), 65504.0, 65519.0)
    beyond = (2.0**-25, 2.0**-26, 2.0**-149, 65520.0, 65536.0, 3e38)
    cases = [Case(["Subnormal" if value < 1e-4 else "Norm"], single(value)) for value in fits]
    cases += [Case(["Norm"], single(value)) for value in beyond]
    cases += [Case(["Norm"], pattern(spec, [1] * DIM))]
    yield Group(params(8, 2), spec, cases)
    # Codewords reach further than the unit vectors they are for, so numbers pass 65504.
    half = PageSpec(1, 1, DIM, DType.F16)
    most = bytes.fromhex("ff7b")
    for spec in (half, PageSpec(1, 1, DIM, DType.BF16)):
        cases = [Case(["Width"], natural(spec))]
        for at in range(8):
            far = bytes([at * 0x11, at * 0x11])[: 1 if spec.dtype is DType.F16 else 2]

            def change(planes: dict[str, bytes], far: bytes = far) -> dict[str, bytes]:
                indices = far + planes["indices"][len(far) :]
                return {**planes, "norms": most, "indices": indices}

            flags = ["Largest"] if spec.dtype is DType.F16 else ["Overflow"]
            target = None if spec.dtype is DType.F16 else DType.F16
            cases.append(Case(flags, change=change, target=target))
        cases += misfits(["norms", "indices"])
        yield Group(params(256, 2), spec, cases)

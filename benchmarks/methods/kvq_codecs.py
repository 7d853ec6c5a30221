"""kvq's codecs, and lossless with the entropy stage of its container."""

from __future__ import annotations

import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.instances import named
from benchmarks.methods import Method
from benchmarks.pages import spec_of
from kvq_cli.codecs import Codec
from kvq_cli.codecs.lossless import Lossless
from kvq_cli.container.entropy import Coder, Decoder
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.page import DType, Page, PageSpec
from kvq_cli.planes import Planes, pack, unpack

PACKAGES: Final = ("kvq-cli", "numpy", "zstandard")

_Encoded = tuple[PageSpec, Planes]


class Plain:
    """A codec on all blocks at once, as kvq stacks neighbouring pages."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._local = threading.local()

    def encode(self, block: NDArray[np.float16]) -> _Encoded:
        spec = spec_of(block, DType.F16)
        return spec, self._codec.encode(Page(spec, block.view(np.uint16)), self._scratch())

    def decode(self, encoded: _Encoded) -> NDArray[np.float16]:
        spec, planes = encoded
        scratch = self._scratch()
        bits = scratch.take("rows", spec.shape, spec.dtype.bits)
        self._codec.decode(planes, spec, Page(spec, bits), scratch)
        return bits.view(np.float16)

    def stored(self, encoded: _Encoded) -> int:
        spec, planes = encoded
        return sum(map(len, pack(self._codec.layout(spec), planes)))

    def keep(self, encoded: _Encoded) -> _Encoded:
        spec, planes = encoded
        return spec, {name: np.array(plane) for name, plane in planes.items()}

    def _scratch(self) -> Scratch:
        if not hasattr(self._local, "scratch"):
            self._local.scratch = Scratch()
        scratch: Scratch = self._local.scratch
        return scratch


class Entropy:
    """A codec and one zstd frame a plane where that pays, page by page."""

    def __init__(self, codec: Codec, heads: int, level: int) -> None:
        self._codec, self._heads, self._level = codec, heads, level
        self._local = threading.local()

    def encode(self, block: NDArray[np.float16]) -> list[Any]:
        scratch, coder, _ = self._tools()
        pages = []
        for at in range(0, len(block), self._heads):
            bits = block[at : at + self._heads].view(np.uint16)
            spec = spec_of(bits, DType.F16)
            planes = pack(self._codec.layout(spec), self._codec.encode(Page(spec, bits), scratch))
            frames = [coder.code(plane) for plane in planes]
            stored = [
                (True, frame) if frame is not None else (False, bytes(plane))
                for frame, plane in zip(frames, planes, strict=True)
            ]
            pages.append((spec, stored))
        return pages

    def decode(self, pages: list[Any]) -> NDArray[np.float16]:
        scratch, _, decoder = self._tools()
        first: PageSpec = pages[0][0]
        heads = sum(spec.heads for spec, _ in pages)
        bits = scratch.take("rows", (heads, first.tokens, first.channels), first.dtype.bits)
        at = 0
        for spec, stored in pages:
            layout = self._codec.layout(spec)
            packed = [
                memoryview(decoder.decode(memoryview(data), plane.nbytes, 0) if coded else data)
                for plane, (coded, data) in zip(layout, stored, strict=True)
            ]
            into = Page(spec, bits[at : at + spec.heads])
            self._codec.decode(unpack(layout, packed), spec, into, scratch)
            at += spec.heads
        return bits.view(np.float16)

    @staticmethod
    def stored(pages: list[Any]) -> int:
        return sum(len(data) for _, stored in pages for _, data in stored)

    def _tools(self) -> tuple[Scratch, Coder, Decoder]:
        if not hasattr(self._local, "tools"):
            self._local.tools = (Scratch(), Coder(self._level), Decoder())
        tools: tuple[Scratch, Coder, Decoder] = self._local.tools
        return tools


def methods(heads: int) -> list[Method]:
    found = []
    for name, codec in named().items():
        if not codec.lossless:
            plain = Plain(codec)
            found.append(Method(name, plain.encode, plain.decode, plain.stored, keep=plain.keep))
    for level in (1, 3):
        coded = Entropy(Lossless(), heads, level)
        name = f"lossless, zstd {level}"
        found.append(Method(name, coded.encode, coded.decode, coded.stored))
    return found

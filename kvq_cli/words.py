"""words: what every part of kvq calls things: role, dtype, reason, page key, page and table spec.

Spec: formats/README.md, section "Words".

Shape letters: H kv heads, T tokens, D channels. This module needs no NumPy, so that
headers and indexes are read without it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum, StrEnum
from itertools import groupby
from typing import Any, Final

from kvq_cli.record import record

# Bits of an element of every safetensors dtype, in the order in which its writer sorts them.
ELEMENT_BITS: Final[dict[str, int]] = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

# Of the tables of a container, all codecs' together.
MAX_TABLES: Final = 64
MAX_TABLE_BYTES: Final = 1 << 26
MAX_PAGE_LAYERS: Final = 4096


class Role(IntEnum):
    """Which half of the cache; the number is what containers store."""

    KEY = 0
    VALUE = 1

    @property
    def word(self) -> str:
        return self.name.lower()


class DType(StrEnum):
    """Element types that lossy codecs take, under their safetensors names."""

    F16 = "F16"
    BF16 = "BF16"
    F32 = "F32"

    @property
    def size(self) -> int:
        return 4 if self is DType.F32 else 2

    @property
    def bits(self) -> str:
        """NumPy's name for the unsigned integers that carry the element bits."""
        return "<u4" if self is DType.F32 else "<u2"


class Reason(IntEnum):
    """Why a page is raw although a rule named another codec; the number is stored."""

    NONE = 0
    PROTECTED = 1
    BUDGET = 2
    UNSUPPORTED = 3
    NON_FINITE = 4
    LARGER = 5

    @property
    def word(self) -> str:
        return self.name.lower().replace("_", "-")


@record(order=True)
class PageKey:
    """Where a page lies; the field order is the order of pages in a container."""

    role: Role
    batch: int
    layer: int
    start: int  # first token
    head_set: int  # a number in the container's table of head sets
    stop: int  # one past the last token
    layers: int = 1  # that follow each other, from `layer` on

    @property
    def every_layer(self) -> range:
        """The numbers of its layers."""
        return range(self.layer, self.layer + self.layers)

    @property
    def layer_words(self) -> str:
        """Its layers, as a message names them."""
        if self.layers == 1:
            return f"layer {self.layer}"
        return f"layers {self.layer}:{self.layer + self.layers}"

    def apart(self) -> Iterator[PageKey]:
        """The same of each of its layers by itself.

        Heads of a page are those of its head set in the first layer, then in the next.
        """
        if self.layers == 1:
            return iter((self,))
        return (replace(self, layer=layer, layers=1) for layer in self.every_layer)


@record
class PageSpec:
    """All that a codec's layout may depend on."""

    heads: int
    tokens: int
    channels: int
    dtype: DType

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.heads, self.tokens, self.channels)

    @property
    def elements(self) -> int:
        return self.heads * self.tokens * self.channels

    @property
    def nbytes(self) -> int:
        return self.elements * self.dtype.size


@record
class TableSpec:
    """A table of a codec: little-endian dtype as NumPy writes it, shape, digest of the bytes."""

    dtype: str
    shape: tuple[int, ...]
    digest: str

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * int(self.dtype[2:])

    def to_json(self) -> dict[str, Any]:
        return {"dtype": self.dtype, "shape": list(self.shape), "digest": self.digest}


def spans(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as half-open ranges."""
    for _, group in groupby(enumerate(numbers), key=lambda each: each[1] - each[0]):
        members = [number for _, number in group]
        yield members[0], members[-1] + 1

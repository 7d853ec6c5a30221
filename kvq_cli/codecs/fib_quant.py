"""fib_quant: vectors as a norm and indices of codewords, bit for bit as the reference has them.

Spec: formats/codecs/fib_quant.md, revision 1; formats/fibquant-compat.md, section "Vector code".

    norm = √Σ x²    y = Q (x / norm)    per block of y the nearest codeword    x' = Qᵀ (…) · norm

A vector is one token's D channels, or D neighbouring tokens of one channel (axis "channel").
Rotation and codebook are tables of the container.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.codecs import Codec, arrays_for, refuse_non_finite
from kvq_cli.contract.compat.bitpack import pack_indices, packed_size, unpack_indices
from kvq_cli.contract.compat.coding import Refusal, decode_vectors, encode_vectors
from kvq_cli.errors import CodecError
from kvq_cli.numerics.bits import narrow, widen
from kvq_cli.numerics.exact import require_subnormals
from kvq_cli.numerics.groups import Axis
from kvq_cli.numerics.packing import check_padding
from kvq_cli.numerics.restore import limit
from kvq_cli.numerics.scratch import Scratch
from kvq_cli.numerics.tiles import Tile, tiles
from kvq_cli.page import Page, PageSpec
from kvq_cli.planes import Layout, Plane, Planes
from kvq_cli.record import record
from kvq_cli.words import TableSpec

INFINITE: Final = 0x7C00  # bits of a norm from which on it is no finite positive number
ONE: Final = 0x3C00
DIGEST: Final = {"pattern": "^blake3:[0-9a-f]{64}$"}
MOST: Final = 2.0  # no rotation and no codebook of the reference holds a magnitude above 1


@record
class FibQuant(Codec):
    """The vector profile as far as decoders need it, and its tables by digest."""

    name: ClassVar[str] = "fib_quant"
    revision: ClassVar[int] = 1
    lossless: ClassVar[bool] = False

    dim: int = field(metadata={"minimum": 1, "maximum": 4096})
    block: int = field(metadata={"minimum": 1, "maximum": 256})
    size: int = field(metadata={"minimum": 2, "maximum": 1 << 20})
    rotation: str = field(metadata=DIGEST)
    codebook: str = field(metadata=DIGEST)
    profile: str = field(metadata=DIGEST)
    axis: Axis = "token"

    def __post_init__(self) -> None:
        if self.dim % self.block:
            raise ValueError(f"dim {self.dim} is not divisible by block {self.block}")

    @property
    def width(self) -> int:
        """Bits of an index."""
        return (self.size - 1).bit_length()

    @property
    def blocks(self) -> int:
        """Blocks of a vector."""
        return self.dim // self.block

    def tables(self) -> tuple[TableSpec, ...]:
        return (
            TableSpec("<f8", (self.dim, self.dim), self.rotation),
            TableSpec("<f4", (self.size, self.block), self.codebook),
        )

    def check_spec(self, spec: PageSpec) -> None:
        if spec.channels != self.dim:
            found = f"{spec.channels} channels, the rotation has {self.dim}"
            raise CodecError("E501", f"{self.name}: {found}")

    def layout(self, spec: PageSpec) -> Layout:
        self.check_spec(spec)
        whole = spec.tokens // self.dim if self.axis == "channel" else 0
        rest = spec.tokens - whole * self.dim
        size, token = packed_size(self.blocks, self.width), "R" if whole else "T"
        planes = []
        if whole:
            shape = (spec.heads, whole, self.dim)
            planes += [Plane("channel_norms", "<f2", shape, "HGD")]
            planes += [Plane("channel_indices", "|u1", (*shape, size), "HGDB")]
        if rest:
            planes += [Plane("norms", "<f2", (spec.heads, rest, 1), f"H{token}1")]
            planes += [Plane("indices", "|u1", (spec.heads, rest, size), f"H{token}B")]
        return tuple(planes)

    def encode(self, page: Page, scratch: Scratch) -> Planes:
        require_subnormals()
        planes = arrays_for(self.layout(page.spec), scratch)
        rotation, codebook = self._arrays(scratch)
        for tile in self._tiles(page.spec):
            bits = page.bits[tile]
            refuse_non_finite(self.name, page, bits, page.spec.dtype)
            values = scratch.take("fib_quant", bits.shape, np.float32)
            widen(bits, page.spec.dtype, values)
            for vectors, norms, indices in self._parts(values, planes, tile):
                codes = encode_vectors(vectors.reshape(-1, self.dim), rotation, codebook)
                if (codes.refusals == Refusal.NORM_RANGE).any():
                    found = "the norm of a vector is not between 2^-25 and 65520, as f16 needs it"
                    raise CodecError("E501", f"{self.name}: {found}")
                norms[...] = codes.norms.view("<f2").reshape(norms.shape)
                indices[...] = pack_indices(codes.indices, self.width).reshape(indices.shape)
        return planes

    def check(self, planes: Planes, spec: PageSpec) -> None:
        del spec
        for prefix in ("channel_", ""):
            if prefix + "norms" in planes:
                self._check(planes[prefix + "norms"], planes[prefix + "indices"])

    def decode(self, planes: Planes, spec: PageSpec, into: Page, scratch: Scratch) -> None:
        require_subnormals()
        self.check(planes, spec)
        rotation, codebook = self._arrays(scratch)
        for tile in self._tiles(spec):
            out = into.bits[tile]
            values = scratch.take("fib_quant", out.shape, np.float32)
            for vectors, norms, indices in self._parts(values, planes, tile):
                found = unpack_indices(indices.reshape(-1, indices.shape[-1]), *self._packing)
                bits = norms.view("<u2").reshape(-1)
                zero = bits == 0
                decoded = decode_vectors(np.where(zero, ONE, bits), found, rotation, codebook)
                decoded[zero] = 0
                vectors[...] = decoded.reshape(vectors.shape)
            limit(values, spec.dtype, into.spec.dtype)
            narrow(values, into.spec.dtype, out, scratch)

    @property
    def _packing(self) -> tuple[int, int]:
        return self.blocks, self.width

    def _arrays(self, scratch: Scratch) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        rotation, codebook = (scratch.tables[table.digest] for table in self.tables())
        for table in (rotation, codebook):
            if not (np.abs(table) <= MOST).all():
                raise CodecError("E502", f"{self.name}: a table holds more than {MOST}, or NaN")
        return rotation, codebook

    def _tiles(self, spec: PageSpec) -> Iterator[Tile]:
        return tiles(spec.shape, whole=self.axis == "channel")

    def _parts(
        self, values: NDArray[np.float32], planes: Planes, tile: Tile
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]]:
        """Vectors of a tile, as views along the last axis, with their norms and indices."""
        heads, tokens, _ = values.shape
        turned = tokens - tokens % self.dim if self.axis == "channel" else 0
        if turned:
            groups = values[:, :turned].reshape(heads, -1, self.dim, self.dim).swapaxes(2, 3)
            yield groups, planes["channel_norms"][tile], planes["channel_indices"][tile]
        if turned < tokens:
            yield values[:, turned:], planes["norms"][tile], planes["indices"][tile]

    def _check(self, norms: NDArray[Any], indices: NDArray[Any]) -> None:
        """CodecError E502 unless an encoder writes these."""
        bits = norms.view("<u2")
        if int(bits.max()) >= INFINITE:
            raise CodecError("E502", f"{self.name}: a norm that is negative, infinite or NaN")
        zero = (bits == 0).reshape(indices.shape[:-1])
        if zero.any() and indices[zero].any():
            raise CodecError("E502", f"{self.name}: a norm of 0 with indices that are not")
        check_padding(indices, self.width, self.blocks, self.name)
        if self.size < 1 << self.width:
            rows = indices.reshape(-1, indices.shape[-1])
            if (most := int(unpack_indices(rows, *self._packing).max())) >= self.size:
                found = f"index {most}, the codebook has {self.size}"
                raise CodecError("E502", f"{self.name}: {found}")

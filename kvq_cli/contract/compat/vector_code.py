"""vector_code: vectors as a norm and indices of codewords, and back.

Spec: formats/fibquant-compat.md, section "Vector code".

    encode   norm = √Σ x²    y = Q (x / norm)    per block of y the nearest codeword
    decode   x = Qᵀ (codewords) · norm           the norm as float16, x as float32

All in float64 between the float32 of vectors and codewords. Many vectors are coded at once,
each as if it were alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.bitpack import pack_indices, unpack_indices
from kvq_cli.contract.compat.codebook import FibCodebookV1, codebook
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.rotation import StoredRotation, rotation
from kvq_cli.contract.compat.search import nearest
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import CodecError


class Refusal(IntEnum):
    """Why a vector has no code."""

    NONE = 0
    NON_FINITE = 1
    ZERO_NORM = 2
    NORM_RANGE = 3  # from 65,520 on, or 2^-25 and less


# The reference's own words: they are part of pages that keep such vectors raw.
REASONS: Final = {
    Refusal.NON_FINITE: "non-finite input",
    Refusal.ZERO_NORM: "zero norm vector is not valid on the normal FibQuant encode path",
    Refusal.NORM_RANGE: "corrupt payload: norm cannot be represented as finite positive fp16",
}


@dataclass(frozen=True, slots=True, eq=False)
class VectorCodes:
    """Codes of n vectors; a refused one has zeros."""

    norms: NDArray[np.uint16]  # (n,), bits of float16
    indices: NDArray[np.uint32]  # (n, blocks)
    refusals: NDArray[np.uint8]  # (n,), numbers of Refusal


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """A profile with its tables."""

    profile: FibQuantProfileV1
    rotation: StoredRotation
    codebook: FibCodebookV1
    profile_digest: str
    codebook_digest: str

    @classmethod
    def build(cls, profile: FibQuantProfileV1) -> Self:
        """Make the tables of a profile, which may take long; ProfileError where it has none."""
        profile.validate()
        turn = rotation(profile.ambient_dim, profile.rotation_seed)
        return cls.of(turn, codebook(profile, turn.digest()))

    @classmethod
    def of(cls, turn: StoredRotation, book: FibCodebookV1) -> Self:
        """Use tables that are there."""
        return cls(book.profile, turn, book, book.profile.digest(), book.digest())

    def encode(self, vectors: NDArray[np.float32]) -> VectorCodes:
        """Codes of the rows of (n, d)."""
        count, dim = vectors.shape
        if dim != self.profile.ambient_dim:
            raise CodecError(
                "E501", f"{dim} channels, the profile is for {self.profile.ambient_dim}"
            )
        wide, refusals = _finite(vectors)
        norms = _norms(wide)
        halves = _halves(norms)
        refusals[(norms > 0.0) & (halves == 0)] = Refusal.NORM_RANGE
        refusals[(norms == 0.0) & (refusals == Refusal.NONE)] = Refusal.ZERO_NORM
        without = refusals != Refusal.NONE
        wide[without], norms[without] = 0.0, 1.0
        wide /= norms[:, None]
        blocks = self.rotation.apply(wide).reshape(-1, self.profile.block_dim)
        found, _ = nearest(blocks, self.codebook.codewords.astype(np.float64))
        indices = found.astype(np.uint32).reshape(count, self.profile.block_count)
        indices[without] = 0
        return VectorCodes(halves, indices, refusals)

    def decode(self, norms: NDArray[np.uint16], indices: NDArray[np.uint32]) -> NDArray[np.float32]:
        """(n, d) vectors of (n,) norms and (n, blocks) indices; CodecError where none has them."""
        scale = norms.view(np.float16).astype(np.float64)
        if not ((scale > 0.0) & np.isfinite(scale)).all():
            raise CodecError("E502", "a norm is not finite and positive")
        if indices.size and (most := int(indices.max())) >= self.profile.codebook_size:
            found = f"index {most} is outside codebook size {self.profile.codebook_size}"
            raise CodecError("E502", found)
        words = self.codebook.codewords.astype(np.float64)[indices]
        turned = self.rotation.apply_inverse(words.reshape(len(norms), self.profile.ambient_dim))
        vectors: NDArray[np.float32] = (turned * scale[:, None]).astype(np.float32)
        return vectors

    def code(self, vector: NDArray[np.float32]) -> FibCodeV1:
        """The artifact of one vector; CodecError where it has none."""
        codes = self.encode(vector[None])
        refusal = Refusal(int(codes.refusals[0]))
        if refusal is not Refusal.NONE:
            raise CodecError("E501", REASONS[refusal])
        return self.artifacts(codes)[0]

    def artifacts(self, codes: VectorCodes) -> list[FibCodeV1]:
        """The artifact of each vector, refused or not."""
        packed = pack_indices(codes.indices, self.profile.wire_index_bits)
        norms = codes.norms.astype("<u2").view(np.uint8).reshape(-1, 2)
        return [
            self._artifact(norm.tobytes(), row.tobytes())
            for norm, row in zip(norms, packed, strict=True)
        ]

    def restore(self, code: FibCodeV1) -> NDArray[np.float32]:
        """The vector of an artifact; CodecError where it is of other tables, or damaged."""
        expected = self._artifact(code.norm_payload, code.indices)
        for name, value in expected.to_json().items():
            found = code.to_json()[name]
            if found != value:
                raise CodecError("E502", f"{name} {found}, {value} is expected")
        if len(code.norm_payload) != 2:
            raise CodecError("E502", f"a norm of {len(code.norm_payload)} bytes, 2 are expected")
        norms = np.frombuffer(code.norm_payload, "<u2").astype(np.uint16)
        rows = np.frombuffer(code.indices, np.uint8)[None]
        count, width = self.profile.block_count, self.profile.wire_index_bits
        vector: NDArray[np.float32] = self.decode(norms, unpack_indices(rows, count, width))[0]
        return vector

    def _artifact(self, norm: bytes, indices: bytes) -> FibCodeV1:
        return FibCodeV1(
            profile_digest=self.profile_digest,
            codebook_digest=self.codebook_digest,
            rotation_digest=self.codebook.rotation_digest,
            ambient_dim=self.profile.ambient_dim,
            block_dim=self.profile.block_dim,
            norm_format=self.profile.norm_format,
            norm_payload=norm,
            wire_index_bits=self.profile.wire_index_bits,
            block_count=self.profile.block_count,
            indices=indices,
        )


def _finite(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Vectors in float64, zeros for those that are not finite, and which those are."""
    wide = vectors.astype(np.float64)
    broken = ~np.isfinite(wide).all(axis=1)
    wide[broken] = 0.0
    refusals = np.zeros(len(wide), np.uint8)
    refusals[broken] = Refusal.NON_FINITE
    return wide, refusals


def _norms(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    total = np.zeros(len(vectors))
    for at in range(vectors.shape[1]):
        total += vectors[:, at] * vectors[:, at]
    return np.sqrt(total)


def _halves(norms: NDArray[np.float64]) -> NDArray[np.uint16]:
    """Norms as bits of float16, by way of float32; 0 where they are too large or too small."""
    with np.errstate(over="ignore", under="ignore"):
        halves = norms.astype(np.float32).astype(np.float16)
    return np.where(np.isfinite(halves), halves, 0).astype(np.float16).view(np.uint16)

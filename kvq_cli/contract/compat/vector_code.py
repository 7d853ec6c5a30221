"""vector_code: vectors as a norm and indices of codewords, and back.

Spec: formats/fibquant-compat.md, section "Vector code".

A profile with its tables makes and reads the codes of vectors, by kvq_cli.contract.compat.coding,
and the artifacts of single ones.
"""

from __future__ import annotations

from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from kvq_cli.contract.compat.bitpack import pack_indices, unpack_indices
from kvq_cli.contract.compat.codebook import FibCodebookV1, codebook
from kvq_cli.contract.compat.coding import (
    Refusal,
    VectorCodes,
    decode_vectors,
    encode_vectors,
)
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.rotation import StoredRotation, rotation
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import CodecError
from kvq_cli.record import record

# The reference's own words: they are part of pages that keep such vectors raw.
REASONS: Final = {
    Refusal.NON_FINITE: "non-finite input",
    Refusal.ZERO_NORM: "zero norm vector is not valid on the normal FibQuant encode path",
    Refusal.NORM_RANGE: "corrupt payload: norm cannot be represented as finite positive fp16",
}


@record(eq=False)
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
        if (dim := vectors.shape[1]) != self.profile.ambient_dim:
            raise CodecError(
                "E501", f"{dim} channels, the profile is for {self.profile.ambient_dim}"
            )
        return encode_vectors(vectors, self.rotation.matrix, self.codebook.codewords)

    def decode(self, norms: NDArray[np.uint16], indices: NDArray[np.uint32]) -> NDArray[np.float32]:
        """(n, d) vectors of (n,) norms and (n, blocks) indices; CodecError where none has them."""
        scale = norms.view(np.float16).astype(np.float64)
        if not ((scale > 0.0) & np.isfinite(scale)).all():
            raise CodecError("E502", "a norm is not finite and positive")
        if indices.size and (most := int(indices.max())) >= self.profile.codebook_size:
            found = f"index {most} is outside codebook size {self.profile.codebook_size}"
            raise CodecError("E502", found)
        return decode_vectors(norms, indices, self.rotation.matrix, self.codebook.codewords)

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

"""codebook: FibCodebookV1, the codewords of a vector profile.

Spec: formats/fibquant-compat.md, section "Codebook".

Measured for default profiles of (d, k, N), rotation included: (64, 4, 32) in 0.1 s,
(128, 4, 256) in 0.5 s, (128, 4, 1024) in 4 s, (128, 4, 4096) in 100 s; it grows with N².
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.compat.initial import initial_codewords
from kvq_cli.contract.compat.lloyd import LloydReportV1, trained
from kvq_cli.contract.compat.rotation import rotation
from kvq_cli.contract.compat.training import training_set
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import LloydMode
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

SCHEMA: Final = "fib_codebook_v1"


@record(eq=False)
class FibCodebookV1:
    """Codewords, and what they were made from and how."""

    profile: FibQuantProfileV1
    rotation_digest: str
    codewords: NDArray[np.float32]  # (N, k), read-only
    report: LloydReportV1

    @property
    def init_mse(self) -> float:
        return self.report.init_mse

    @property
    def training_mse(self) -> float:
        return self.report.best_mse

    def compact(self) -> str:
        """The text that is digested."""
        return compact.write(
            {
                "schema_version": SCHEMA,
                "profile_digest": self.profile.digest(),
                "rotation_digest": self.rotation_digest,
                "codewords": compact.Singles(self.codewords.reshape(-1).tolist()),
                "init_mse": self.init_mse,
                "training_mse": self.training_mse,
                "refinement_report": self.report.to_json(),
            }
        )

    def digest(self) -> str:
        return digest.json_digest(SCHEMA, self.compact())


def codebook(profile: FibQuantProfileV1, rotation_digest: str | None = None) -> FibCodebookV1:
    """Train the codebook of a profile; ProfileError where it has none.

    The digest of the profile's rotation is computed unless it is given.
    """
    profile.validate()
    if profile.lloyd_mode is LloydMode.SKIP:
        raise ProfileError("E403", "untrained codebooks are not supported", "/lloyd_mode")
    first = initial_codewords(profile)
    words, report = trained(profile, first, training_set(profile))
    codewords = words.astype(np.float32)
    codewords.flags.writeable = False
    if rotation_digest is None:
        rotation_digest = rotation(profile.ambient_dim, profile.rotation_seed).digest()
    return FibCodebookV1(profile, rotation_digest, codewords, report)

"""calibration_summary: KvCalibrationSummaryV1, what the vectors of one shape and role are like.

Spec: formats/contract.md, section "Calibration summary".

The digest is over every field but itself, so an object that was changed contradicts it.
"""

from __future__ import annotations

from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact
from kvq_cli.contract.fields import U64, Fields
from kvq_cli.contract.words import KvAxisPolicyV1, KvRole
from kvq_cli.record import record

SCHEMA: Final = "fib_quant_kv_calibration_summary_v1"
DIGEST: Final = "calibration_digest"
NORMS: Final = ("mean_norm", "max_norm")


@record(kw_only=True)
class KvCalibrationSummaryV1:
    """The fields, in digest order; the last is not digested."""

    schema_version: str = SCHEMA
    shape_digest: str
    source_digest: str
    role: KvRole
    vector_count: int
    mean_norm: float
    max_norm: float
    outlier_count: int
    recommended_axis: KvAxisPolicyV1
    recommended_first_tokens_raw: int
    recommended_last_tokens_raw: int
    recommended_bits_per_coord: None = None
    calibration_digest: str

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        summary = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            shape_digest=fields.text("shape_digest"),
            source_digest=fields.text("source_digest"),
            role=fields.choice("role", KvRole),
            vector_count=fields.integer("vector_count", 0, U64),
            mean_norm=fields.number("mean_norm"),
            max_norm=fields.number("max_norm"),
            outlier_count=fields.integer("outlier_count", 0, U64),
            recommended_axis=fields.choice("recommended_axis", KvAxisPolicyV1),
            recommended_first_tokens_raw=fields.integer("recommended_first_tokens_raw"),
            recommended_last_tokens_raw=fields.integer("recommended_last_tokens_raw"),
            recommended_bits_per_coord=fields.optional(
                # The reference recommends no rate, so that the text of one is not known.
                fields.refuse,
                "recommended_bits_per_coord",
                "not supported, only null",
                "E403",
            ),
            calibration_digest=fields.text(DIGEST),
        )
        fields.done()
        summary._check_rules(fields)
        return summary

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        """The text that is digested: all but the digest."""
        told = self.to_json()
        del told[DIGEST]
        return compact.write(told)

    def digest(self) -> str:
        """The digest of a valid summary, which it states itself; an invalid one has none."""
        self.from_json(self.to_json())
        return self._digest()

    def _digest(self) -> str:
        return digest.json_digest(SCHEMA, self.compact())

    def _check_rules(self, fields: Fields) -> None:
        for name in NORMS:
            if getattr(self, name) < 0:
                fields.refuse(name, f"{name} must not be negative")
        if self.outlier_count > self.vector_count:
            found = f"{self.outlier_count} outliers of {self.vector_count} vectors"
            fields.refuse("outlier_count", found)
        if self.calibration_digest != self._digest():
            found = f"{self.calibration_digest}, the fields are {self._digest()}"
            fields.refuse(DIGEST, found, "E402")

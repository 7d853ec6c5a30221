"""kv_profile: KvCompressionProfileV1, one role's compression bound to one shape.

Spec: formats/contract.md, section "KV profile".

It embeds a vector profile and a page geometry, and names by digest the shape, the vector
profile, the codebook and the rotation. rotation_digest and codebook_digest are only checked
for their form here: kvq_cli.contract.compat computes and compares them.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any, Final, Self

from kvq_cli import digest
from kvq_cli.contract import compact, difference
from kvq_cli.contract.fields import Fields, shown
from kvq_cli.contract.geometry import KvPageGeometryV1
from kvq_cli.contract.policies import KvFallbackPolicyV1, KvProtectedPolicyV1, KvQualityBudgetV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import KvAxisPolicyV1, KvRole
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

SCHEMA: Final = "fib_quant_kv_compression_profile_v1"
NO_CALIBRATION: Final = "missing:calibration"


@record(kw_only=True)
class KvCompressionProfileV1:
    """The fields, in digest order."""

    schema_version: str = SCHEMA
    profile_id: str
    shape_digest: str
    fib_profile: FibQuantProfileV1
    fib_profile_digest: str
    codebook_digest: str
    rotation_digest: str
    role_policy: KvRole
    axis_policy: KvAxisPolicyV1
    page_geometry: KvPageGeometryV1
    protected_policy: KvProtectedPolicyV1 = field(default_factory=KvProtectedPolicyV1)
    fallback_policy: KvFallbackPolicyV1 = field(default_factory=KvFallbackPolicyV1)
    quality_budget: KvQualityBudgetV1 = field(default_factory=KvQualityBudgetV1)
    calibration_digest: str = NO_CALIBRATION

    @classmethod
    def from_parts(
        cls,
        profile_id: str,
        shape: KvTensorShapeV1,
        fib_profile: FibQuantProfileV1,
        *,
        codebook_digest: str,
        rotation_digest: str,
        axis_policy: KvAxisPolicyV1,
        page_geometry: KvPageGeometryV1,
    ) -> Self:
        """A profile for `shape` with nothing protected, raw fallback and no budget."""
        profile = cls(
            profile_id=profile_id,
            shape_digest=shape.digest(),
            fib_profile=fib_profile,
            fib_profile_digest=fib_profile.digest(),
            codebook_digest=codebook_digest,
            rotation_digest=rotation_digest,
            role_policy=shape.role,
            axis_policy=axis_policy,
            page_geometry=page_geometry,
        )
        profile.validate_for_shape(shape)
        return profile

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        profile = cls(
            schema_version=fields.exactly("schema_version", SCHEMA),
            profile_id=fields.text("profile_id"),
            shape_digest=_digest(fields, "shape_digest"),
            fib_profile=FibQuantProfileV1.from_json(*fields.member("fib_profile")),
            fib_profile_digest=_digest(fields, "fib_profile_digest"),
            codebook_digest=fields.text("codebook_digest"),
            rotation_digest=_digest(fields, "rotation_digest"),
            role_policy=fields.choice("role_policy", KvRole),
            axis_policy=fields.choice("axis_policy", KvAxisPolicyV1),
            page_geometry=KvPageGeometryV1.from_json(*fields.member("page_geometry")),
            protected_policy=KvProtectedPolicyV1.from_json(*fields.member("protected_policy")),
            fallback_policy=KvFallbackPolicyV1.from_json(*fields.member("fallback_policy")),
            quality_budget=KvQualityBudgetV1.from_json(*fields.member("quality_budget")),
            calibration_digest=fields.text("calibration_digest"),
        )
        fields.done()
        profile._check_rules(fields)
        return profile

    @property
    def trains(self) -> bool:
        """Whether whoever obeys the profile needs its codebook."""
        return self.axis_policy is not KvAxisPolicyV1.RAW

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def compact(self) -> str:
        return compact.write(self.to_json())

    def digest(self) -> str:
        """The digest of a profile that holds in itself; an invalid one has none."""
        self.validate()
        return digest.json_digest(SCHEMA, self.compact())

    def validate(self, pointer: str = "") -> None:
        """ProfileError where no shape could have this profile."""
        self.from_json(self.to_json(), pointer)

    def validate_for_shape(self, shape: KvTensorShapeV1, pointer: str = "") -> None:
        """ProfileError where the profile is wrong, or is for another shape than `shape`."""
        self.validate(pointer)
        self._check_shape_digest(shape, f"{pointer}/shape_digest")
        if self.role_policy != shape.role:
            found = f"the profile is for {self.role_policy}, the capture has {shape.role}"
            raise ProfileError("E402", f"role: {found}", f"{pointer}/role_policy")
        if self.fib_profile.ambient_dim != shape.head_dim:
            found = f"ambient_dim {self.fib_profile.ambient_dim} differs from the capture's"
            where = f"{pointer}/fib_profile/ambient_dim"
            raise ProfileError("E402", f"{found} head_dim {shape.head_dim}", where)
        shape.validate_block_dim(self.fib_profile.block_dim, f"{pointer}/fib_profile/block_dim")
        self.page_geometry.validate_for_shape(shape, f"{pointer}/page_geometry")
        self.protected_policy.validate_for_shape(shape, f"{pointer}/protected_policy")

    def _check_shape_digest(self, shape: KvTensorShapeV1, pointer: str) -> None:
        actual = shape.digest()
        if self.shape_digest == actual:
            return
        why = difference.explain(
            shape, self.shape_digest, self.role_policy, self.fib_profile.ambient_dim
        )
        found = f"the profile is for shape {self.shape_digest}, the capture has {actual}"
        raise ProfileError("E402", f"{found}; {why}", pointer)

    def _check_rules(self, fields: Fields) -> None:
        if not self.codebook_digest:
            fields.refuse("codebook_digest", "an empty string, a digest is expected")
        expected = self.fib_profile.digest()
        if self.fib_profile_digest != expected:
            found = f"{self.fib_profile_digest}, but fib_profile has {expected}"
            fields.refuse("fib_profile_digest", found, "E402")
        channels, head_dim = self.fib_profile.ambient_dim, self.page_geometry.head_dim
        if channels != head_dim:
            found = f"head_dim {head_dim} differs from ambient_dim {channels} of fib_profile"
            raise ProfileError("E402", found, f"{fields.at('page_geometry')}/head_dim")


def _digest(fields: Fields, key: str) -> str:
    value = fields.text(key)
    if not digest.is_text(value):
        fields.refuse(key, f"{shown(value)} is not blake3: and 64 lower-case hexadecimal digits")
    return value

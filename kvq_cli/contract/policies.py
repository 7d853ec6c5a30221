"""policies: the three declarations of a KV profile that are no numbers of a codec.

Spec: formats/contract.md, section "KV profile".

    protected   which vectors stay raw: first and last tokens, layers, kv heads
    fallback    what happens to what cannot be compressed
    budget      the largest loss of attention quality that is accepted, and what then
"""

from __future__ import annotations

from typing import Any, Final, Self

from kvq_cli.contract import compact
from kvq_cli.contract.fields import Fields
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.words import KvFallbackModeV1
from kvq_cli.errors import ProfileError
from kvq_cli.record import record

METRICS: Final = (
    "max_logit_mse",
    "max_attention_tv",
    "max_topk_disagreement",
    "max_value_aggregation_mse",
)


@record(kw_only=True)
class KvProtectedPolicyV1:
    """Regions that stay raw; a vector in any of them does."""

    first_tokens_raw: int = 0
    last_tokens_raw: int = 0
    raw_layers: tuple[int, ...] = ()
    raw_heads: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        policy = cls(
            first_tokens_raw=fields.integer("first_tokens_raw"),
            last_tokens_raw=fields.integer("last_tokens_raw"),
            raw_layers=fields.integers("raw_layers"),
            raw_heads=fields.integers("raw_heads"),
        )
        fields.done()
        return policy

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)

    def is_protected(self, shape: KvTensorShapeV1, layer: int, head: int, token: int) -> bool:
        return (
            token < self.first_tokens_raw
            or token + self.last_tokens_raw >= shape.tokens
            or layer in self.raw_layers
            or head in self.raw_heads
        )

    def validate_for_shape(self, shape: KvTensorShapeV1, pointer: str = "") -> None:
        """ProfileError where a region lies outside the shape."""
        for name in ("first_tokens_raw", "last_tokens_raw"):
            count = getattr(self, name)
            if count > shape.tokens:
                found = f"{count} protected tokens, the capture has {shape.tokens}"
                raise ProfileError("E402", found, f"{pointer}/{name}")
        for name, what, count in (
            ("raw_layers", "layer", shape.layers),
            ("raw_heads", "kv head", shape.kv_heads),
        ):
            for at, number in enumerate(getattr(self, name)):
                if number >= count:
                    found = f"protected {what} {number}, the capture has {count}"
                    raise ProfileError("E402", found, f"{pointer}/{name}/{at}")


@record(kw_only=True)
class KvFallbackPolicyV1:
    """The flag is declared and digested; version 1 has no rule on it."""

    mode: KvFallbackModeV1 = KvFallbackModeV1.KEEP_RAW
    raw_fallback_available: bool = True

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        policy = cls(
            mode=fields.choice("mode", KvFallbackModeV1),
            raw_fallback_available=fields.boolean("raw_fallback_available"),
        )
        fields.done()
        return policy

    def to_json(self) -> dict[str, Any]:
        return compact.members(self)


@record(kw_only=True)
class KvQualityBudgetV1:
    """Bounds on attention metrics; None is no bound."""

    max_logit_mse: float | None = None
    max_attention_tv: float | None = None
    max_topk_disagreement: float | None = None
    max_value_aggregation_mse: float | None = None
    fallback_on_violation: KvFallbackModeV1 = KvFallbackModeV1.KEEP_RAW

    @classmethod
    def from_json(cls, value: Any, pointer: str = "") -> Self:
        fields = Fields(value, pointer)
        bounds = {name: fields.optional(fields.number, name) for name in METRICS}
        for name, bound in bounds.items():
            if bound is not None and bound < 0:
                fields.refuse(name, f"{bound!r}, a budget must be finite and not negative")
        mode = fields.choice("fallback_on_violation", KvFallbackModeV1)
        fields.done()
        return cls(**bounds, fallback_on_violation=mode)

    def to_json(self) -> dict[str, Any]:
        value = compact.members(self)
        for name in METRICS:
            value[name] = None if value[name] is None else float(value[name])
        return value

    @property
    def has_any_metric(self) -> bool:
        return any(getattr(self, name) is not None for name in METRICS)

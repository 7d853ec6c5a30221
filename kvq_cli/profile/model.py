"""model: what a profile says, as values, and its normal form.

Spec: formats/profile.md, sections "Members" and "Normal form".

    to_json       every member, every default written out; page_layers only where it is not 1
    content_json  the same without description and storage: what a container records
    digest        of content_json, under the tag "kvq_profile_v1"

Entropy coding, level, alignment and prose change no packed byte, so they are no part of
the digest. The last rule of a Profile matches everything.
"""

from __future__ import annotations

from dataclasses import field, fields
from enum import StrEnum
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_to_json
from kvq_cli.digest import json_digest
from kvq_cli.numerics.scratch import Tables
from kvq_cli.profile.ranges import Range, ranges_to_json
from kvq_cli.record import record
from kvq_cli.words import Role

SCHEMA: Final = "kvq_profile_v1"


class Fallback(StrEnum):
    """What happens to a page that its codec cannot hold, or that breaks a budget."""

    KEEP_RAW = "keep_raw"
    FAIL_CLOSED = "fail_closed"


class Entropy(StrEnum):
    """How stored planes are entropy coded."""

    NONE = "none"
    ZSTD = "zstd"


@record
class Rule:
    """A codec and what it is for; a selector that is None matches everything."""

    codec: Codec
    role: Role | None = None
    layers: tuple[Range, ...] | None = None
    heads: tuple[Range, ...] | None = None
    tokens: tuple[Range, ...] | None = None

    @property
    def matches_everything(self) -> bool:
        return self.role is None and self.layers is self.heads is self.tokens is None

    def to_json(self) -> dict[str, Any]:
        return {
            "role": None if self.role is None else self.role.word,
            "layers": ranges_to_json(self.layers),
            "heads": ranges_to_json(self.heads),
            "tokens": ranges_to_json(self.tokens),
            "codec": _codec_json(self.codec),
        }


@record
class Protected:
    """What is stored raw whatever the rules say."""

    first_tokens: int = 0
    last_tokens: int = 0
    layers: tuple[Range, ...] = ()
    heads: tuple[Range, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "first_tokens": self.first_tokens,
            "last_tokens": self.last_tokens,
            "layers": ranges_to_json(self.layers),
            "heads": ranges_to_json(self.heads),
        }


@record
class Rung:
    """A codec that pages get before they stay raw; a role that is None means both."""

    codec: Codec
    role: Role | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "role": None if self.role is None else self.role.word,
            "codec": _codec_json(self.codec),
        }


@record
class Budget:
    """Bounds on measured quality, per layer and query head; at least one is not None."""

    max_logit_mse: float | None = None
    max_attention_tv: float | None = None
    max_topk_disagreement: float | None = None
    max_value_aggregation_mse: float | None = None
    max_relative_mse: float | None = None
    min_attention_cosine: float | None = None
    ladder: tuple[Rung, ...] = ()
    on_violation: Fallback = Fallback.KEEP_RAW

    def to_json(self) -> dict[str, Any]:
        bounds = {bound: getattr(self, bound) for bound in BOUNDS}
        ladder = [rung.to_json() for rung in self.ladder]
        return bounds | {"ladder": ladder, "on_violation": self.on_violation.value}


BOUNDS: Final = tuple(field.name for field in fields(Budget) if field.name[:4] in ("max_", "min_"))


@record
class Storage:
    """How packed planes are stored; changes no packed byte."""

    entropy: Entropy = Entropy.ZSTD
    level: int = 1
    alignment: int = 64

    def to_json(self) -> dict[str, Any]:
        return {
            "entropy": self.entropy.value,
            "level": self.level,
            "alignment": self.alignment,
        }


@record
class Profile:
    """Which codec every part of a capture gets, and on what terms."""

    name: str
    rules: tuple[Rule, ...]
    description: str = ""
    page_tokens: int = 256
    page_layers: int = 1
    protected: Protected = Protected()
    fallback: Fallback = Fallback.KEEP_RAW
    budget: Budget | None = None
    fixed_rate: bool = False
    calibration_digest: str | None = None
    storage: Storage = Storage()
    # What codecs of the rules need: their parameters name it by digest, so it decides nothing more.
    tables: Tables = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not (self.rules and self.rules[-1].matches_everything):
            raise ValueError("the last rule of a profile matches everything")

    def ladder(self, role: Role) -> tuple[Codec, ...]:
        """What pages of a role get, one after the other, while they break the budget."""
        rungs = self.budget.ladder if self.budget else ()
        return tuple(rung.codec for rung in rungs if rung.role in (None, role))

    def to_json(self) -> dict[str, Any]:
        """The normal form; parse_profile gives the same profile back."""
        return {
            "schema": SCHEMA,
            "name": self.name,
            "description": self.description,
            "page_tokens": self.page_tokens,
            # Older than this member are profiles whose digests are known.
            **({"page_layers": self.page_layers} if self.page_layers != 1 else {}),
            "rules": [rule.to_json() for rule in self.rules],
            "protected": self.protected.to_json(),
            "fallback": self.fallback.value,
            "budget": None if self.budget is None else self.budget.to_json(),
            "fixed_rate": self.fixed_rate,
            "calibration_digest": self.calibration_digest,
            "storage": self.storage.to_json(),
        }

    def content_json(self) -> dict[str, Any]:
        """The normal form of what decides packed bytes."""
        content = self.to_json()
        del content["description"], content["storage"]
        return content

    def digest(self) -> str:
        return json_digest(SCHEMA, jsontext.canonical(self.content_json()))


def _codec_json(codec: Codec) -> dict[str, Any]:
    params: dict[str, Any] = codec_to_json(codec)["params"]
    return {"name": codec.name} | params

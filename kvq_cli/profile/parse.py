"""parse: kvq_profile_v1 JSON to a Profile, strictly.

Spec: formats/profile.md, section "Members"; formats/schemas/profile.schema.json.

What leaves here holds built codecs and ends in a rule that matches everything; nobody
looks at the JSON a second time. Every refusal has the JSON pointer of the member.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import codec_from_json
from kvq_cli.codecs.transform import Transform
from kvq_cli.contract.fields import U32, Fields, shown
from kvq_cli.digest import is_text
from kvq_cli.errors import CodecError, ProfileError
from kvq_cli.profile.model import (
    BOUNDS,
    SCHEMA,
    TARGETS,
    Budget,
    Entropy,
    Fallback,
    Profile,
    Protected,
    Rule,
    Rung,
    Storage,
    Target,
)
from kvq_cli.profile.ranges import limit_length, read_ranges, read_selector
from kvq_cli.words import MAX_PAGE_LAYERS, Role

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FAMILY: Final = re.compile(r"kvq_profile_v[0-9]+")
ROLES: Final = {role.word: role for role in Role}
MAX_DESCRIPTION: Final = 2000  # characters
MAX_PAGE_TOKENS: Final = 65536
# Room for a rule per layer and head of the largest models (128 layers, 8 heads, 2 roles).
MAX_RULES: Final = 4096
MAX_RUNGS: Final = 16
MAX_LEVEL: Final = 22
MAX_ALIGNMENT: Final = 1 << 21
MIN_ALIGNMENT: Final = 64
MOST_TARGET: Final = 64.0


def parse_profile(value: Any) -> Profile:
    """The profile that a JSON value states; ProfileError where it states none."""
    fields = Fields(value)
    _check_schema(fields)
    fixed_rate = fields.optional(fields.boolean, "fixed_rate") or False
    profile = Profile(
        name=_name(fields),
        description=_description(fields),
        page_tokens=fields.optional(fields.integer, "page_tokens", 1, MAX_PAGE_TOKENS) or 256,
        page_layers=fields.optional(fields.integer, "page_layers", 1, MAX_PAGE_LAYERS) or 1,
        rules=_rules(fields),
        protected=_protected(fields),
        fallback=fields.optional(fields.choice, "fallback", Fallback) or Fallback.KEEP_RAW,
        budget=_member_budget(fields),
        fixed_rate=fixed_rate,
        calibration_digest=_calibration_digest(fields),
        target=_target(fields),
        storage=_storage(fields, fixed_rate=fixed_rate),
    )
    fields.done()
    _check_steps(fields, profile)
    return profile


def _target(fields: Fields) -> Target | None:
    if not fields.has("target"):
        return None
    members = fields.object("target")
    numbers = {name: members.number(name) for name in TARGETS if members.has(name)}
    members.done()
    if len(numbers) != 1:
        fields.refuse("target", f"one of {', '.join(TARGETS)} is expected")
    ((name, number),) = numbers.items()
    if not 0 < number <= MOST_TARGET:
        members.refuse(name, f"more than 0, at most {MOST_TARGET:g}, is expected")
    return Target(**numbers)


def _check_steps(fields: Fields, profile: Profile) -> None:
    """A transform has a step of its own, or the profile a target to find it for; no fixed rate."""
    steps = [codec.step for codec in profile.codecs() if isinstance(codec, Transform)]
    if profile.fixed_rate and steps:
        fields.refuse("fixed_rate", "pages of the codec transform have no fixed size")
    if profile.target is None and None in steps:
        fields.refuse("rules", "the codec transform needs a step, or the profile a target")
    if profile.target is not None and None not in steps:
        fields.refuse("target", "no codec transform is there whose step is left open")


def _check_schema(fields: Fields) -> None:
    schema = fields.text("schema")
    if schema != SCHEMA and FAMILY.fullmatch(schema):
        fields.refuse(
            "schema", f"{shown(schema)} needs another kvq, this one reads {SCHEMA}", "E403"
        )
    fields.exactly("schema", SCHEMA)


def _name(fields: Fields) -> str:
    name = fields.text("name")
    if not NAME.fullmatch(name):
        allowed = "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit"
        fields.refuse("name", f"{shown(name)} is not {allowed}")
    return name


def _description(fields: Fields) -> str:
    description = fields.optional(fields.text, "description") or ""
    if len(description) > MAX_DESCRIPTION:
        found = f"{len(description)} characters, at most {MAX_DESCRIPTION} are allowed"
        fields.refuse("description", found, "E404")
    return description


def _rules(fields: Fields) -> tuple[Rule, ...]:
    limit_length(fields, "rules", MAX_RULES)
    rules = tuple(_rule(each) for each in fields.objects("rules"))
    if rules and rules[-1].matches_everything:
        return rules
    # The normal form is a profile too, and must not be refused for the rule it adds.
    if len(rules) == MAX_RULES:
        found = f"{MAX_RULES} rules, one of which must match everything and come last"
        fields.refuse("rules", found, "E404")
    return (*rules, Rule(codec_from_json("lossless", {}, "")))


def _rule(fields: Fields) -> Rule:
    rule = Rule(
        role=_role(fields),
        layers=read_selector(fields, "layers"),
        heads=read_selector(fields, "heads"),
        tokens=read_selector(fields, "tokens"),
        codec=_codec(fields),
    )
    fields.done()
    return rule


def _role(fields: Fields) -> Role | None:
    word = fields.optional(fields.text, "role")
    if word is not None and word not in ROLES:
        fields.refuse("role", f"{shown(word)} is not one of {', '.join(ROLES)}")
    return None if word is None else ROLES[word]


def _codec(fields: Fields) -> Codec:
    value, pointer = fields.value("codec"), fields.at("codec")
    if isinstance(value, str):
        return _built(value, {}, pointer, pointer)
    members = fields.object("codec")
    name = members.text("name")
    params = {key: each for key, each in value.items() if key != "name"}
    return _built(name, params, pointer, members.at("name"))


def _built(name: str, params: dict[str, Any], pointer: str, name_pointer: str) -> Codec:
    try:
        return codec_from_json(name, params, pointer)
    except CodecError as error:
        # The registry does not know where the name was written.
        raise ProfileError(error.error_id, str(error), name_pointer) from error


def _protected(fields: Fields) -> Protected:
    if not fields.has("protected"):
        return Protected()
    members = fields.object("protected")
    protected = Protected(
        first_tokens=members.optional(members.integer, "first_tokens", 0, U32) or 0,
        last_tokens=members.optional(members.integer, "last_tokens", 0, U32) or 0,
        layers=read_ranges(members, "layers"),
        heads=read_ranges(members, "heads"),
    )
    members.done()
    return protected


def _member_budget(fields: Fields) -> Budget | None:
    return read_budget(fields.object("budget")) if fields.has("budget") else None


def read_budget(members: Fields) -> Budget | None:
    """The budget that an object states; None without a bound."""
    bounds = {bound: members.optional(_bound, bound, members) for bound in BOUNDS}
    ladder: tuple[Rung, ...] = ()
    if members.has("ladder"):
        limit_length(members, "ladder", MAX_RUNGS)
        ladder = tuple(_rung(each) for each in members.objects("ladder"))
    on_violation = members.optional(members.choice, "on_violation", Fallback)
    members.done()
    if all(bound is None for bound in bounds.values()):
        return None
    return Budget(**bounds, ladder=ladder, on_violation=on_violation or Fallback.KEEP_RAW)


def _rung(fields: Fields) -> Rung:
    rung = Rung(role=_role(fields), codec=_codec(fields))
    fields.done()
    return rung


def _bound(key: str, fields: Fields) -> float:
    # Adding 0.0 turns -0.0 into 0.0: equal bounds have equal digests.
    bound = fields.number(key) + 0.0
    low, high = (-1.0, 1.0) if key == "min_attention_cosine" else (0.0, math.inf)
    if not low <= bound <= high:
        allowed = "at least 0" if low == 0 else "in -1..1"
        fields.refuse(key, f"{shown(bound)} is not {allowed}")
    return bound


def _calibration_digest(fields: Fields) -> str | None:
    digest = fields.optional(fields.text, "calibration_digest")
    if digest is not None and not is_text(digest):
        found = f"{shown(digest)} is not blake3: and 64 lower-case hex digits"
        fields.refuse("calibration_digest", found)
    return digest


def _storage(fields: Fields, *, fixed_rate: bool) -> Storage:
    members = fields.object("storage") if fields.has("storage") else Fields({}, "/storage")
    entropy = members.optional(members.choice, "entropy", Entropy) or Entropy.ZSTD
    alignment = members.optional(members.integer, "alignment", MIN_ALIGNMENT, MAX_ALIGNMENT)
    alignment = alignment or MIN_ALIGNMENT
    if alignment & (alignment - 1):
        members.refuse("alignment", f"{alignment} is not a power of two in 64..2097152")
    level = members.optional(members.integer, "level", 1, MAX_LEVEL) or 1
    members.done()
    # Fixed rate promises pages of one size, which an entropy coder cannot keep.
    return Storage(Entropy.NONE if fixed_rate else entropy, level, alignment)

"""choose: which profile each role gets, and what is known of the capture's shape.

A kvq profile covers both roles, a fib_quant profile the one it names; a role that no
profile covers is lossless, and the container says so. What a capture does not tell
(attention kind, query heads, rope state) is the user's word, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.errors import KvqError, ProfileError, UsageError
from kvq_cli.profile import Entropy, Profile, Storage, load_profile
from kvq_cli.profile.parse import MAX_LEVEL
from kvq_cli.record import record
from kvq_cli.words import Role

DEFAULT: Final = "lossless"
MANY: Final = 1024  # codewords whose training takes seconds


@record
class Choice:
    """A profile for some roles, and how a container records it."""

    roles: tuple[Role, ...]
    profile: Profile
    recorded: dict[str, Any]
    digest: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "roles": [role.word for role in self.roles],
            "profile": self.recorded,
            "digest": self.digest,
        }


def choose_profiles(
    sources: Sequence[str | Path | Profile], shapes: Mapping[Role, KvTensorShapeV1 | None]
) -> tuple[Choice, ...]:
    """One choice a profile, roles disjoint, both roles covered."""
    loaded = [named_profile(each) for each in sources]
    bound = [_bound(each, shapes) for each in loaded if isinstance(each, KvCompressionProfileV1)]
    general = [each for each in loaded if isinstance(each, Profile)]
    taken = [role for choice in bound for role in choice.roles]
    if len(general) > 1 or len(set(taken)) != len(taken):
        raise UsageError("E101", "two profiles cover the same role")
    rest = tuple(role for role in Role if role not in taken)
    if general and not rest:
        raise UsageError("E101", f"profile {general[0].name} is left without a role")
    if rest:
        profile = general[0] if general else load_profile(DEFAULT)
        assert isinstance(profile, Profile)
        bound.append(Choice(rest, profile, profile.content_json(), profile.digest()))
    return tuple(sorted(bound, key=lambda choice: choice.roles))


def apart(sources: Sequence[str]) -> list[list[str]]:
    """Profiles to be tried one after the other: each that covers both roles by itself.

    KV profiles of fib_quant are for one role each, and go with every one of them. What is no
    profile is left for whoever tries it to tell.
    """
    try:
        loaded = [(source, load_profile(source)) for source in sources]
    except KvqError:
        return [list(sources)]
    bound = [source for source, each in loaded if not isinstance(each, Profile)]
    general = [source for source, each in loaded if isinstance(each, Profile)]
    return [[*bound, source] for source in general] if len(general) > 1 else [list(sources)]


def named_profile(source: str | Path | Profile) -> Profile | KvCompressionProfileV1:
    """The profile; a refusal names its file, which is not the story's input."""
    if isinstance(source, Profile):
        return source
    try:
        return load_profile(source)
    except ProfileError as error:
        error.args = (f"profile {source}: {error}",)
        raise


def _bound(
    profile: KvCompressionProfileV1, shapes: Mapping[Role, KvTensorShapeV1 | None]
) -> Choice:
    role = Role[profile.role_policy.name]
    shape = shapes[role]
    if shape is None:
        raise ProfileError(
            "E402",
            f"profile {profile.profile_id} is bound to a {role.word} shape that the capture does "
            "not tell in full; give attention_kind, query_heads and rope_state with --meta or "
            "--shape",
            "/shape_digest",
        )
    from kvq_cli.profile.compat import from_kv_profile

    policy = from_kv_profile(profile, shape)
    return Choice((role,), policy, profile.to_json(), profile.digest(), tuple(_notes(profile)))


def _notes(profile: KvCompressionProfileV1) -> Iterator[str]:
    size = profile.fib_profile.codebook_size
    if profile.trains and size >= MANY:
        yield (
            f"profile {profile.profile_id}: a codebook of {size} codewords is trained for every "
            "call, which takes time that grows with their square"
        )


def storage_of(
    choices: Sequence[Choice], level: int | None = None, alignment: int | None = None
) -> Storage:
    """The first profile's storage, as the user changed it; no packed byte depends on it."""
    storage = choices[0].profile.storage
    if any(choice.profile.fixed_rate for choice in choices):
        storage = replace(storage, entropy=Entropy.NONE)
    if level is not None:
        if not 1 <= level <= MAX_LEVEL:
            raise UsageError("E101", f"level {level}, 1 to {MAX_LEVEL} are allowed")
        storage = replace(storage, level=level)
    if alignment is not None:
        if not 64 <= alignment <= 1 << 21 or alignment & (alignment - 1):
            raise UsageError("E101", f"alignment {alignment}, a power of two in 64..2097152")
        storage = replace(storage, alignment=alignment)
    return storage

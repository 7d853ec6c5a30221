"""caution: what somebody should know of a profile who trusts it with the keys of a model.

Codes of few bits that share a grid along a token lose what a strong key channel leaves no room
for: models with biased key projections do not survive it. Means taken off first help, and do not
cure it (docs/adr/0013).
"""

from __future__ import annotations

from collections.abc import Iterator

from kvq_cli.codecs import Codec
from kvq_cli.codecs.gridded import Gridded
from kvq_cli.codecs.rotated import Rotated
from kvq_cli.profile.model import Profile
from kvq_cli.words import Role


def cautions(profile: Profile) -> tuple[str, ...]:
    """Sentences, none for most profiles."""
    told = (_caution(codec) for codec in dict.fromkeys(_for_keys(profile)))
    return tuple(each for each in told if each)


def _caution(codec: Codec) -> str | None:
    if isinstance(codec, Gridded) and codec.groups.axis == "token":
        return (
            f"keys in {codec.name} groups along tokens, {'less' if codec.centred else 'with'} "
            f"their channel means: {codec.width} bits are few where some channels are strong; int4 "
            "and kivi per channel are safer"
        )
    if isinstance(codec, Rotated) and not codec.center:
        return (
            f"keys in {codec.name} with their channel means: what all rows share takes most of the "
            "levels; center is safer"
        )
    return None


def _for_keys(profile: Profile) -> Iterator[Codec]:
    """The codecs that some key may get."""
    for rule in profile.rules:
        if rule.role is not Role.VALUE:
            yield rule.codec
            if rule.layers is rule.heads is rule.tokens is None:
                return

"""grouping: which layers share their pages.

Spec: formats/profile.md, section "Groups of layers".

Layers are alike if their rows have one shape and the profile treats them the same way. Layers
of a group follow each other and are alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import TypeAlias

from kvq_cli.capture import Capture
from kvq_cli.capture.layout import LayerShape
from kvq_cli.container.manifest import MAX_PAGE
from kvq_cli.profile import Profile, Run, page_lengths
from kvq_cli.record import record
from kvq_cli.words import MAX_PAGE_LAYERS, DType, Role, spans

Groups: TypeAlias = Mapping[int, int]  # how many layers each has, by its first
Given: TypeAlias = Sequence[tuple[int, int]]  # first layer, and how many


@record
class _Kind:
    """What layers of a group have in common."""

    batch: int
    heads: int
    tokens: int
    channels: int
    dtype: DType
    runs: tuple[Run, ...]

    def most(self, page_tokens: int) -> int:
        """How many layers a page may have, for its bytes; one at least."""
        rows = (
            len(run.heads) * max(page_lengths(run, page_tokens), default=0) for run in self.runs
        )
        largest = max(rows, default=0) * self.channels * self.dtype.size
        return max(1, min(MAX_PAGE // max(largest, 1), MAX_PAGE_LAYERS))


def groups_of(
    capture: Capture,
    role: Role,
    profile: Profile,
    treated: Mapping[tuple[Role, int], tuple[Run, ...]],
    given: Given | None = None,
) -> Groups:
    """The groups of a role: those that are given, or as many layers as the profile says.

    A group that is given and cannot be one, since its layers are not alike or its pages would
    be too large, falls into single layers; so do layers that no group has.
    """
    kinds = {
        layer.layer: _kind(layer, role, treated[role, layer.layer])
        for layer in capture.layers
        if role in layer.roles
    }
    if given is None:
        cut = _counted(kinds, profile)
    else:
        cut = ((first, count) for first, count in given if _may_be(kinds, first, count, profile))
    found = dict(cut)
    inside = {layer for first, count in found.items() for layer in range(first, first + count)}
    if len(inside) != sum(found.values()):
        raise ValueError(f"groups overlap: {given}")
    alone = ((layer, 1) for layer in kinds if layer not in inside)
    return dict(sorted([*found.items(), *alone]))


def _kind(layer: LayerShape, role: Role, runs: tuple[Run, ...]) -> _Kind:
    channels, dtype = layer.roles[role]
    return _Kind(layer.batch, layer.heads, layer.tokens, channels, dtype, runs)


def _counted(kinds: Mapping[int, _Kind], profile: Profile) -> Iterator[tuple[int, int]]:
    """Each stretch of layers that are alike, cut from its first layer on."""
    for start, stop in spans(sorted(kinds)):
        for kind, stretch in groupby(range(start, stop), key=kinds.__getitem__):
            layers = list(stretch)
            size = min(profile.page_layers, kind.most(profile.page_tokens))
            for at in range(0, len(layers), size):
                yield layers[at], len(layers[at : at + size])


def _may_be(kinds: Mapping[int, _Kind], first: int, count: int, profile: Profile) -> bool:
    kind = kinds.get(first)
    alike = kind is not None and all(
        kinds.get(layer) == kind for layer in range(first, first + count)
    )
    return alike and kind is not None and 0 < count <= kind.most(profile.page_tokens)

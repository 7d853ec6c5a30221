"""cutting: the tensors of the source's own layout, cut to a selection.

Spec: formats/capture.md, section "Writing".

A dimension may hold several axes, so dimensions are found again from lengths:

    shape [128, 3, 128] of T 128, H 3, R 2, D 64        T | H | R D
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvq_cli.capture.arranged import Arranged, Cache, NewTensor
from kvq_cli.container.manifest import Manifest, Rows, TensorEntry
from kvq_cli.errors import UsageError


def cut_tensors(manifest: Manifest, cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """Every tensor that has rows of the cache, with its name, in its file."""
    found = []
    for entry in manifest.tensors:
        rows = entry.rows
        if rows is None:
            continue
        roles = tuple(role for role in rows.roles if any(role is each for each, _ in cache))
        mine = range(rows.first_layer, rows.first_layer + rows.length("L"))
        layers = tuple(layer for layer in mine if roles and (roles[0], layer) in cache)
        if layers:
            _check_whole(manifest, rows, layers[0])
            file = manifest.files[entry.file].name if manifest.files else None
            axes = _dimensions(entry, rows, roles=len(roles))
            shape = cache[roles[0], layers[0]]
            found.append(NewTensor(entry.name, roles, axes, layers, shape, file))
    return Arranged(tuple(found), metadata=metadata)


def _check_whole(manifest: Manifest, rows: Rows, layer: int) -> None:
    whole = manifest.parts_by_layer()[layer].kv_heads
    if "," in rows.axes or rows.length("H") != whole:
        raise UsageError(
            "E101", "a part of this layout has no form of its own; choose one with --layout"
        )


def _dimensions(entry: TensorEntry, rows: Rows, *, roles: int) -> str:
    """The axes with a comma between dimensions; without R where one role is left."""
    groups = grouped(entry.shape, rows.axes, rows.lengths)
    if roles < len(rows.roles):
        groups = [group for each in groups if (group := each.replace("R", ""))]
    joined = ",".join(groups)
    return joined if any(len(group) > 1 for group in groups) else joined.replace(",", "")


def grouped(shape: Sequence[int], axes: str, lengths: Mapping[str, int]) -> list[str]:
    """The axes that each dimension holds; each takes one at least, and the last takes the rest."""
    groups: list[str] = []
    left = list(axes)
    for size in shape:
        group = left.pop(0)
        product = lengths[group]
        while left and product < size:
            product *= lengths[left[0]]
            group += left.pop(0)
        groups.append(group)
    return [*groups[:-1], groups[-1] + "".join(left)]

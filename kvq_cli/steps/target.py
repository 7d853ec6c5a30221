"""target: the safetensors file that a container is restored to.

Spec: formats/capture.md, section "Writing".

Unsliced and in its own layout and dtype, the target has the source file's own header bytes,
so the file is the original again. Otherwise its tensors are cut to the selection, or named
anew, and a deterministic header is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from kvq_cli import jsontext
from kvq_cli.capture import ADAPTERS
from kvq_cli.capture.header import Header, parse_header
from kvq_cli.capture.layout import Binding, slabs_of
from kvq_cli.capture.slab import Slab
from kvq_cli.capture.writer import header_bytes
from kvq_cli.container.manifest import Manifest, Part
from kvq_cli.errors import UsageError
from kvq_cli.record import record
from kvq_cli.steps.select import Selection
from kvq_cli.words import ELEMENT_BITS, DType, Role

LAYOUTS: Final = ("source", "canonical", "per_layer")
ALIASES: Final = {"hf": "per_layer"}
# Metadata that a slice or another layout makes untrue.
STALE: Final = ("tokens", "layers", "kv_heads", "dtype", "layer_indices")
STALE_HEADS: Final = ("query_heads", "attention_kind")


@record
class Target:
    """Where every byte goes."""

    header: bytes
    size: int
    slabs: Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer of the source
    tensors: Mapping[int, int]  # offset of each tensor that is not stored as pages


@record
class _NewTensor:
    name: str
    dtype: str
    role: Role
    axes: str
    shape: tuple[int, ...]
    layers: tuple[int, ...]


def source_target(manifest: Manifest, head: Header) -> Target:
    """The original file."""
    numbered = list(enumerate(zip(head.tensors, manifest.tensors, strict=True)))
    slabs = [
        slab
        for _, (tensor, entry) in numbered
        if entry.role is not None and entry.axes is not None
        for slab in slabs_of(Binding(tensor, entry.role, entry.axes, entry.first_layer or 0))
    ]
    return Target(
        header=head.raw,
        size=head.file_size,
        slabs={(slab.role, slab.batch, slab.layer): slab for slab in slabs},
        tensors={at: tensor.start for at, (tensor, entry) in numbered if entry.role is None},
    )


def new_target(
    manifest: Manifest, head: Header, selection: Selection, *, layout: str, dtype: DType | None
) -> Target:
    """A file of the selected rows, in a layout, in a dtype."""
    news = _new_tensors(manifest, selection, layout)
    if not news:
        raise UsageError("E101", "nothing is chosen: the container has no such keys or values")
    if dtype is not None:
        news = [replace(new, dtype=str(dtype)) for new in news]
    # Tensors that are not keys or values have no rows to select.
    others = [] if selection.cuts else [t for t in manifest.tensors if t.role is None]
    tensors = [(new.name, new.dtype, new.shape) for new in news]
    tensors += [(other.name, other.dtype, other.shape) for other in others]
    names = [name for name, _, _ in tensors]
    if len(set(names)) != len(names):
        raise UsageError("E101", f"layout {layout}: a tensor of that name is there already")
    raw = header_bytes(tensors, _metadata(head.metadata, manifest, selection, layout))
    header = parse_header(raw, len(raw) + _total(tensors))
    _check_readable(header, layout)
    by_name = {tensor.name: tensor for tensor in header.tensors}
    slabs: dict[tuple[Role, int, int], Slab] = {}
    for new in news:
        for slab in slabs_of(Binding(by_name[new.name], new.role, new.axes, 0)):
            slabs[new.role, slab.batch, new.layers[slab.layer]] = slab
    return Target(
        header=raw,
        size=header.file_size,
        slabs=slabs,
        tensors={
            at: by_name[entry.name].start
            for at, entry in enumerate(manifest.tensors)
            if entry.role is None and entry.name in by_name and not selection.cuts
        },
    )


def _check_readable(header: Header, layout: str) -> None:
    """Tensors that are carried along must not make a new layout ambiguous."""
    fits = [name for name, recognise in ADAPTERS.items() if recognise(header)]
    if layout != "source" and fits != [layout]:
        raise UsageError(
            "E101",
            f"layout {layout}: with the tensors that are carried along it would read as "
            f"{' and '.join(fits) or 'none'}; choose a part with --role, --layers or --tokens",
        )


def _new_tensors(manifest: Manifest, selection: Selection, layout: str) -> list[_NewTensor]:
    if layout == "canonical":
        _check_same_layers(manifest, selection)
        return [new for role in selection.roles for new in _canonical(manifest, selection, role)]
    if layout == "per_layer":
        return [
            _cut(manifest, selection, role, (layer,), f"layers.{layer}.{role.word}", "BHTD")
            for role in selection.roles
            for layer in selection.layers(manifest, role)
        ]
    news = []
    for entry in manifest.tensors:
        if entry.role in selection.roles and entry.axes is not None:
            assert entry.first_layer is not None
            count = entry.shape[entry.axes.index("L")] if "L" in entry.axes else 1
            mine = range(entry.first_layer, entry.first_layer + count)
            layers = tuple(each for each in selection.layers(manifest, entry.role) if each in mine)
            if layers:
                news.append(_cut(manifest, selection, entry.role, layers, entry.name, entry.axes))
    return news


def _check_same_layers(manifest: Manifest, selection: Selection) -> None:
    """Layers of the canonical layout have no names: a gap in one role would move its layers."""
    found = {selection.layers(manifest, role) for role in selection.roles} - {()}
    if len(found) > 1:
        raise UsageError(
            "E101",
            "canonical layout numbers layers from 0, and here keys and values have different "
            "ones; choose with --layers or --role, or take --layout per_layer",
        )


def _canonical(manifest: Manifest, selection: Selection, role: Role) -> list[_NewTensor]:
    layers = selection.layers(manifest, role)
    if not layers:
        return []
    parts = manifest.parts_by_layer()
    shapes = {_role_shape(parts[layer], role) for layer in layers}
    if len(shapes) > 1:
        raise UsageError(
            "E101",
            f"canonical layout holds layers of one shape, these {role.word}s have {len(shapes)}; "
            "choose with --layers, or take --layout per_layer",
        )
    return [_cut(manifest, selection, role, layers, role.word, "BLHTD")]


def _role_shape(part: Part, role: Role) -> tuple[int, int, int, int, DType]:
    shape = part.roles[role]
    return (part.batch, part.kv_heads, part.tokens, shape.head_dim, shape.dtype)


def _cut(
    manifest: Manifest,
    selection: Selection,
    role: Role,
    layers: tuple[int, ...],
    name: str,
    axes: str,
) -> _NewTensor:
    part = manifest.parts_by_layer()[layers[0]]
    shape = part.roles[role]
    lengths = {
        "B": part.batch,
        "L": len(layers),
        "H": len(selection.heads(part.kv_heads)),
        "T": len(selection.tokens(part.tokens)),
        "D": shape.head_dim,
    }
    sizes = tuple(lengths[letter] for letter in axes)
    return _NewTensor(name, str(shape.dtype), role, axes, sizes, layers)


def _total(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> int:
    return sum(math.prod(shape) * ELEMENT_BITS[dtype] // 8 for _, dtype, shape in tensors)


def _metadata(
    metadata: Mapping[str, str], manifest: Manifest, selection: Selection, layout: str
) -> dict[str, str]:
    stale = {*STALE, *(STALE_HEADS if selection.cuts_heads else ())}
    if layout != "source":
        stale.add("layout")  # a slice keeps the axes that it spells out
    kept = {key: text for key, text in metadata.items() if key not in stale}
    found = {layer for role in selection.roles for layer in selection.layers(manifest, role)}
    layers = sorted(found)
    renumbered = layout == "canonical" and layers != list(range(len(layers)))
    if renumbered or (selection.cuts_layers and layout != "per_layer"):
        kept["layer_indices"] = jsontext.canonical(layers)
    return kept

"""target: the safetensors files that a container is restored to.

Spec: formats/capture.md, section "Writing".

Unsliced and in its own layout and dtype, the target has the source files' own header bytes,
so it is the original again. Otherwise its tensors are cut to the selection, or named anew, and
deterministic headers are written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from kvq_cli.capture import ADAPTERS, recognised
from kvq_cli.capture.arranged import (
    Arranged,
    Cache,
    CannotHoldError,
    RowShape,
    binding_in,
    files_of,
)
from kvq_cli.capture.binding import slabs_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.rows import joined
from kvq_cli.capture.slab import Slab
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import CaptureError, UsageError
from kvq_cli.record import record
from kvq_cli.steps.beside import SOURCE, check_place, metadata_of, others_of, written
from kvq_cli.steps.cutting import cut_tensors
from kvq_cli.steps.promised import binding_of
from kvq_cli.steps.select import Selection
from kvq_cli.words import DType, Role

WRITTEN: Final = tuple(name for name, each in ADAPTERS.items() if each.arrange)


@record
class Target:
    """Where every byte goes."""

    files: Files
    slabs: Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer of the source
    tensors: Mapping[int, int]  # offset of each tensor that is not stored as pages
    extras: tuple[tuple[int, bytes], ...] = ()  # offsets, and what is written there
    source: bool = False  # these are the original files


def source_target(manifest: Manifest, files: Files) -> Target:
    """The original files."""
    found = [files.tensor(each.name, files.files[each.file].name) for each in manifest.tensors]
    numbered = list(enumerate(zip(found, manifest.tensors, strict=True)))
    bindings = [
        binding_of(entry.rows, tensor) for _, (tensor, entry) in numbered if entry.rows is not None
    ]
    return Target(
        files=files,
        slabs=joined(files, bindings),
        tensors={at: tensor.start for at, (tensor, entry) in numbered if entry.rows is None},
        source=True,
    )


def new_target(
    manifest: Manifest,
    files: Files,
    selection: Selection,
    *,
    layout: str,
    dtype: DType | None,
    others: bool = True,
) -> Target:
    """Files of the selected rows, in a layout, in a dtype, and of `others` where all is taken."""
    cache = _cache(manifest, selection, dtype)
    if not cache:
        raise UsageError("E101", "nothing is chosen: the container has no such keys or values")
    metadata = metadata_of(files.metadata, manifest, selection, layout)
    arranged = _arranged(manifest, cache, metadata, layout)
    # Tensors that are not keys or values have no rows to select.
    carried = others_of(manifest, layout) if others and not selection.cuts else {}
    check_place(manifest, layout, carried)
    arranged = replace(arranged, others=tuple(carried.values()))
    try:
        made = files_of(arranged)
    except ValueError as error:
        raise UsageError("E101", f"layout {layout}: {error}") from error
    _check_readable(made, layout)
    return Target(
        files=made,
        slabs=_slabs(made, arranged),
        tensors={at: made.tensor(each.name, each.file).start for at, each in carried.items()},
        extras=tuple((made.tensor(each.name).start, each.data) for each in arranged.extras),
    )


def is_folder(manifest: Manifest, layout: str) -> bool:
    """Whether what is restored in a layout is a folder."""
    if layout != SOURCE:
        return ADAPTERS[layout].folder
    return manifest.files is not None


def _cache(manifest: Manifest, selection: Selection, dtype: DType | None) -> Cache:
    """The shapes of what is selected."""
    parts = manifest.parts_by_layer()
    found = {}
    for role in selection.roles:
        for layer in selection.layers(manifest, role):
            part, shape = parts[layer], parts[layer].roles[role]
            found[role, layer] = RowShape(
                batch=part.batch,
                heads=len(selection.heads(part.kv_heads)),
                tokens=len(selection.tokens(part.tokens)),
                channels=shape.head_dim,
                dtype=dtype or shape.dtype,
            )
    return found


def _arranged(
    manifest: Manifest, cache: Cache, metadata: Mapping[str, str], layout: str
) -> Arranged:
    own = ADAPTERS.get(manifest.layout)
    if layout == SOURCE and not (own and own.rewritten):
        return cut_tensors(manifest, cache, metadata)
    name = written(manifest, layout)
    arrange = ADAPTERS[name].arrange
    if arrange is None:
        raise UsageError("E101", f"layout {name} is not written")
    try:
        return arrange(cache, metadata)
    except CannotHoldError as error:
        others = ", ".join(each for each in WRITTEN if each != name)
        raise UsageError(
            "E101",
            f"layout {name} {error}; choose with --layers or --role, or take --layout {others}",
        ) from error


def _slabs(files: Files, arranged: Arranged) -> Mapping[tuple[Role, int, int], Slab]:
    """Where the rows go, under the numbers of their layers."""
    found: dict[tuple[Role, int, int], Slab] = {}
    for new in arranged.tensors:
        for slab in slabs_of(binding_in(files, new)):
            found[slab.role, slab.batch, new.layers[slab.layer]] = slab
    return found


def _check_readable(files: Files, layout: str) -> None:
    """Tensors that are carried along must not make a new layout ambiguous."""
    if layout == SOURCE or ADAPTERS[layout].named:
        return
    try:
        found = recognised(files)[0]
    except CaptureError as error:
        found = str(error)
    if found != layout:
        raise UsageError(
            "E101",
            f"layout {layout}: with the tensors that are carried along it would not be recognised "
            f"({found}); choose a part with --role, --layers or --tokens",
        )

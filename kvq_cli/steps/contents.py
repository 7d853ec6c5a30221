"""contents: what a container's header says of a capture: its files, tensors and parts.

Spec: formats/container.md, section "Header".
"""

from __future__ import annotations

from collections.abc import Mapping

from kvq_cli.capture import Capture
from kvq_cli.capture.binding import Binding
from kvq_cli.container.manifest import FileEntry, Part, RoleShape, Rows, TensorEntry
from kvq_cli.digest import plain, text
from kvq_cli.profile import Fallback, Profile, Run
from kvq_cli.steps.facts import PartShape, typed_shape
from kvq_cli.words import Role, spans


def tensors_of(capture: Capture) -> tuple[TensorEntry, ...]:
    bindings = {(each.tensor.file, each.tensor.name): each for each in capture.bindings}
    return tuple(
        TensorEntry(
            file=tensor.file,
            name=tensor.name,
            dtype=tensor.dtype,
            shape=tensor.shape,
            nbytes=tensor.nbytes,
            rows=_rows(bindings.get((tensor.file, tensor.name))),
        )
        for tensor in capture.files.tensors
    )


def _rows(binding: Binding | None) -> Rows | None:
    if binding is None:
        return None
    return Rows(
        roles=binding.roles,
        axes=binding.axes,
        lengths=dict(binding.lengths),
        first_layer=binding.first_layer,
        first_head=binding.first_head,
        tokens=binding.tokens if binding.stored is None else binding.stored,
    )


def files_of(capture: Capture) -> tuple[FileEntry, ...] | None:
    files = capture.files
    if not files.folder:
        return None
    return tuple(
        FileEntry(each.name or "", None if each.header else text(plain(each.head)))
        for each in files.files
    )


def part_of(part: PartShape, capture: Capture) -> Part:
    roles = {}
    for role, (channels, dtype) in part.roles.items():
        shape = part.shape_json(role, capture.facts)
        typed = typed_shape(shape)
        roles[role] = RoleShape(channels, dtype, shape, typed.digest() if typed else None)
    return Part(
        layers=tuple(spans(part.layers)),
        batch=part.batch,
        kv_heads=part.heads,
        tokens=part.tokens,
        roles=roles,
    )


def head_sets_of(
    treated: Mapping[tuple[Role, int], tuple[Run, ...]], profiles: Mapping[Role, Profile]
) -> tuple[tuple[int, ...], ...]:
    """In order of first use; where a page may be split, every head of its layer follows alone."""
    sets: dict[tuple[int, ...], None] = {}
    single: dict[tuple[int, ...], None] = {}
    for (role, _), found in treated.items():
        for run in found:
            sets[run.heads] = None
            splits = profiles[role].fallback is Fallback.KEEP_RAW or profiles[role].budget
            if not run.codec.lossless and splits:
                single.update(((head,), None) for head in run.heads)
    return tuple(sets | single)

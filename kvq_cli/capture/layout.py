"""layout: an open capture: its slabs, the shapes of its layers, and what is known of it.

Spec: formats/capture.md, section "Bindings".

An adapter binds tensors by names, shapes and metadata alone. From the bindings follow the
slabs, and the checks that hold for every layout.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Self, TypeAlias

from kvq_cli.capture.adapter import Found, Told
from kvq_cli.capture.binding import Binding
from kvq_cli.capture.facts import Facts, facts_of, identity_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.rows import Slabs, joined, number, settled
from kvq_cli.capture.slab import Slab
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError
from kvq_cli.record import record
from kvq_cli.words import DType, Role

# 256 layers of 128 batch entries in both roles; a slab takes some hundred bytes of memory.
MAX_SLABS: Final = 1 << 16
MAX_HEADS: Final = 1 << 21  # of all slabs
QUANTISABLE: Final = frozenset(DType)


@record
class LayerShape:
    """One layer; keys and values differ at most in channels and dtype."""

    layer: int
    batch: int
    heads: int
    tokens: int
    key: tuple[int, DType] | None
    value: tuple[int, DType] | None

    @property
    def roles(self) -> dict[Role, tuple[int, DType]]:
        """Channels and dtype of those that are there."""
        both = {Role.KEY: self.key, Role.VALUE: self.value}
        return {role: each for role, each in both.items() if each is not None}


@record(eq=False)
class Capture:
    """An open capture; a context manager that closes its source."""

    source: Source
    files: Files  # as a container tells them: those of the source, where all of it is taken
    layout: str
    bindings: tuple[Binding, ...]
    slabs: Slabs
    layers: tuple[LayerShape, ...]
    depth: int  # layers that the model has, as far as the file tells
    others: tuple[Tensor, ...]  # every tensor without a binding, in data order
    unquantisable: tuple[Tensor, ...]  # those of them that are keys or values
    doubt: str | None
    facts: Facts
    identity: Mapping[str, str]
    notes: tuple[str, ...]  # sentences for the user

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


ByRole: TypeAlias = Mapping[Role, Slab]


def bind(source: Source, layout: str, found: Found) -> Capture:
    """The capture under these bindings; CaptureError where they contradict each other."""
    files = source.files
    check_bindings(files, found.bindings)
    taken = [each for each in found.bindings if each.tensor.dtype in QUANTISABLE]
    left = tuple(each.tensor for each in found.bindings if each.tensor.dtype not in QUANTISABLE)
    taken, told_notes = settled(source, taken)
    slabs = joined(files, taken)
    layers = layers_of(slabs)
    told = {**files.metadata, **found.identity}
    facts, fact_notes = facts_of(told)
    identity, identity_notes = identity_of(told)
    bound = {each.tensor for each in taken}
    return Capture(
        source=source,
        files=files,
        layout=layout,
        bindings=tuple(taken),
        slabs=slabs,
        layers=layers,
        depth=layers[-1].layer + 1 if layers else 0,
        others=tuple(tensor for tensor in files.tensors if tensor not in bound),
        unquantisable=left,
        doubt=found.doubt,
        facts=facts,
        identity=identity,
        notes=(
            *(_said(source, each) for each in found.notes),
            *_doubts(found),
            *told_notes,
            *_notes(layers, left),
            *fact_notes,
            *identity_notes,
        ),
    )


def _said(source: Source, note: str | Told) -> str:
    if isinstance(note, str):
        return note
    return note.text.format(*(number(source, each) for each in note.numbers))


def check_bindings(files: Files, bindings: Iterable[Binding]) -> None:
    """CaptureError for bindings of nothing, or of too much."""
    slabs = heads = 0
    for binding in bindings:
        label = shown(files.label(binding.tensor))
        if 0 in binding.tensor.shape:
            found = f"shape {list(binding.tensor.shape)} holds nothing"
            raise CaptureError("E206", found, label)
        if binding.layers.stop > MAX_SLABS:
            found = f"layer {binding.layers.stop - 1}, numbers are below {MAX_SLABS}"
            raise CaptureError("E207", found, label)
        slabs += binding.length("B") * binding.length("L")
        heads += binding.length("B") * binding.length("L") * binding.length("H")
        if slabs > MAX_SLABS or heads > MAX_HEADS:
            what = f"more than {MAX_SLABS} layers times batch entries in all"
            if slabs <= MAX_SLABS:
                what = f"more than {MAX_HEADS} kv heads times layers times batch entries in all"
            raise CaptureError("E207", what, label)


def layers_of(slabs: Slabs) -> tuple[LayerShape, ...]:
    """The shape of each layer, ascending."""
    by_layer: dict[int, dict[Role, Slab]] = {}
    batches: dict[tuple[int, Role], int] = {}
    for (role, _, layer), slab in slabs.items():
        by_layer.setdefault(layer, {}).setdefault(role, slab)
        batches[layer, role] = batches.get((layer, role), 0) + 1
    return tuple(
        _layer_shape(layer, {role: batches[layer, role] for role in roles}, roles)
        for layer, roles in sorted(by_layer.items())
    )


def _layer_shape(layer: int, batches: Mapping[Role, int], roles: ByRole) -> LayerShape:
    (role, first), *rest = roles.items()
    for other, slab in rest:
        for word, one, another in (
            ("batch entries", batches[role], batches[other]),
            ("heads", first.heads, slab.heads),
            ("tokens", first.tokens, slab.tokens),
        ):
            if one != another:
                found = f'{one} {word} in layer {layer}, "{shown(slab.tensor)}" has {another}'
                raise CaptureError("E202", found, shown(first.tensor))
    sizes = {role: (slab.channels, slab.dtype) for role, slab in roles.items()}
    return LayerShape(
        layer=layer,
        batch=batches[role],
        heads=first.heads,
        tokens=first.tokens,
        key=sizes.get(Role.KEY),
        value=sizes.get(Role.VALUE),
    )


def _doubts(found: Found) -> list[str]:
    """What becomes of a capture in doubt, where its layout says nothing of it."""
    if found.doubt is None or found.notes:
        return []
    return [f"kept as it is, which only a lossless profile can: {found.doubt}"]


def _notes(layers: Iterable[LayerShape], left: Iterable[Tensor]) -> list[str]:
    layers = list(layers)
    notes = [
        f'tensor "{shown(tensor.name)}" is {tensor.dtype}, which only a lossless codec takes'
        for tensor in left
    ]
    for role, other in (("key", "value"), ("value", "key")):
        lone = [str(shape.layer) for shape in layers if getattr(shape, other) is None]
        if lone:
            named = ", ".join(lone[:8]) + (", ..." if len(lone) > 8 else "")
            notes.append(f"{len(lone)} of {len(layers)} layers hold {role}s only: {named}")
    return notes

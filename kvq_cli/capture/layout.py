"""layout: which tensors of a capture are keys and values, and how their axes lie.

Spec: formats/capture.md, section "Bindings".

Axes are the letters B batch, L layers, H kv heads, T tokens, D channels, in memory order, D
last; a missing B or L counts as length 1. An adapter binds tensors by the header alone. From
the bindings follow the slabs, and the checks that hold for every layout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Self, TypeAlias

from kvq_cli.capture.facts import Facts, facts_of, identity_of
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.capture.slab import Slab, read_rows, write_rows
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError
from kvq_cli.record import record
from kvq_cli.words import DType, Role

__all__ = [
    "Binding",
    "Capture",
    "Facts",
    "LayerShape",
    "Slab",
    "bind",
    "read_rows",
    "slabs_of",
    "write_rows",
]

# 256 layers of 128 batch entries in both roles; a slab takes some hundred bytes of memory.
MAX_SLABS: Final = 1 << 16
QUANTISABLE: Final = frozenset(DType)


@record
class Binding:
    """A tensor of keys or values; its layers are numbered from `first_layer`."""

    tensor: Tensor
    role: Role
    axes: str
    first_layer: int

    def length(self, letter: str) -> int:
        return self.tensor.shape[self.axes.index(letter)] if letter in self.axes else 1

    def stride(self, letter: str) -> int:
        """Bytes from one to the next; 0 for a missing axis."""
        if letter not in self.axes:
            return 0
        inner = math.prod(self.tensor.shape[self.axes.index(letter) + 1 :])
        return inner * DType(self.tensor.dtype).size

    @property
    def layers(self) -> range:
        return range(self.first_layer, self.first_layer + self.length("L"))


@record
class LayerShape:
    """One layer; keys and values differ at most in channels and dtype."""

    layer: int
    batch: int
    heads: int
    tokens: int
    key: tuple[int, DType] | None
    value: tuple[int, DType] | None


@record(eq=False)
class Capture:
    """An open capture; a context manager that closes its source."""

    source: Source
    layout: str
    bindings: tuple[Binding, ...]
    slabs: Mapping[tuple[Role, int, int], Slab]  # by role, batch entry, layer
    layers: tuple[LayerShape, ...]
    depth: int  # layers that the model has, as far as the file tells
    others: tuple[Tensor, ...]  # every tensor without a binding, in data order
    unquantisable: tuple[Tensor, ...]  # those of them that are keys or values
    facts: Facts
    identity: Mapping[str, str]
    notes: tuple[str, ...]  # sentences for the user

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.source.close()


ByRole: TypeAlias = Mapping[Role, Binding]


def slabs_of(binding: Binding) -> list[Slab]:
    """The slabs of a binding, by batch entry and layer."""
    return [
        Slab(
            role=binding.role,
            batch=batch,
            layer=layer,
            tensor=binding.tensor.name,
            offset=binding.tensor.start + batch * binding.stride("B") + at * binding.stride("L"),
            heads=binding.length("H"),
            tokens=binding.length("T"),
            channels=binding.length("D"),
            dtype=DType(binding.tensor.dtype),
            head_stride=binding.stride("H"),
            token_stride=binding.stride("T"),
        )
        for batch in range(binding.length("B"))
        for at, layer in enumerate(binding.layers)
    ]


def bind(source: Source, layout: str, bindings: Sequence[Binding]) -> Capture:
    """The capture under these bindings; CaptureError where they contradict each other."""
    _check_bindings(bindings)
    taken = [binding for binding in bindings if binding.tensor.dtype in QUANTISABLE]
    left = tuple(binding.tensor for binding in bindings if binding.tensor.dtype not in QUANTISABLE)
    by_layer: dict[int, dict[Role, Binding]] = {}
    for binding in taken:
        for layer in binding.layers:
            by_layer.setdefault(layer, {})[binding.role] = binding
    layers = tuple(_layer_shape(layer, by_layer[layer]) for layer in sorted(by_layer))
    metadata = source.header.metadata
    facts, fact_notes = facts_of(metadata)
    identity, identity_notes = identity_of(metadata)
    bound = {binding.tensor.name for binding in taken}
    slabs = [slab for binding in taken for slab in slabs_of(binding)]
    return Capture(
        source=source,
        layout=layout,
        bindings=tuple(taken),
        slabs={(slab.role, slab.batch, slab.layer): slab for slab in slabs},
        layers=layers,
        depth=layers[-1].layer + 1 if layers else 0,
        others=tuple(tensor for tensor in source.header.tensors if tensor.name not in bound),
        unquantisable=left,
        facts=facts,
        identity=identity,
        notes=(*_notes(layers, left), *fact_notes, *identity_notes),
    )


def _check_bindings(bindings: Iterable[Binding]) -> None:
    slabs = 0
    seen: dict[tuple[Role, int], str] = {}
    for binding in bindings:
        tensor, label = binding.tensor, shown(binding.tensor.name)
        if 0 in tensor.shape:
            raise CaptureError("E206", f"shape {list(tensor.shape)} holds nothing", label)
        slabs += binding.length("B") * binding.length("L")
        if slabs > MAX_SLABS:
            raise CaptureError(
                "E207", f"more than {MAX_SLABS} layers times batch entries in all", label
            )
        for layer in binding.layers:
            if (binding.role, layer) in seen:
                raise CaptureError(
                    "E202",
                    f"{binding.role.word} of layer {layer}, which "
                    f'"{seen[binding.role, layer]}" holds already',
                    label,
                )
            seen[binding.role, layer] = label


def _layer_shape(layer: int, roles: ByRole) -> LayerShape:
    first, *rest = roles.values()
    for letter, word in (("B", "batch entries"), ("H", "heads"), ("T", "tokens")):
        for other in rest:
            if first.length(letter) != other.length(letter):
                raise CaptureError(
                    "E202",
                    f"{first.length(letter)} {word} in layer {layer}, "
                    f'"{shown(other.tensor.name)}" has {other.length(letter)}',
                    shown(first.tensor.name),
                )
    sizes = {
        role: (binding.length("D"), DType(binding.tensor.dtype)) for role, binding in roles.items()
    }
    return LayerShape(
        layer=layer,
        batch=first.length("B"),
        heads=first.length("H"),
        tokens=first.length("T"),
        key=sizes.get(Role.KEY),
        value=sizes.get(Role.VALUE),
    )


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

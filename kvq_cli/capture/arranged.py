"""arranged: rows that are to be written in a layout: its tensors, before there is a file.

Spec: formats/capture.md, section "Writing".

A layout that can be written has `arrange(cache, metadata)`, which says of each role and layer
which tensor takes it. CannotHoldError says what the layout has no place for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import TypeAlias

from kvq_cli.capture.binding import Binding
from kvq_cli.capture.files import File, Files
from kvq_cli.capture.writer import new_header
from kvq_cli.record import record
from kvq_cli.words import DType, Role


class CannotHoldError(Exception):
    """The layout has no place for this cache; the text says why."""


@record
class RowShape:
    """Keys or values of one layer as they are to be written."""

    batch: int
    heads: int
    tokens: int
    channels: int
    dtype: DType

    def lengths(self, layers: int) -> dict[str, int]:
        return {
            "B": self.batch,
            "L": layers,
            "H": self.heads,
            "T": self.tokens,
            "D": self.channels,
        }


Cache: TypeAlias = Mapping[tuple[Role, int], RowShape]  # by role and layer, in order


@record
class NewTensor:
    """A tensor to be: the layers it takes, and its axes, as `bound` reads them."""

    name: str
    roles: tuple[Role, ...]
    axes: str  # "BHTD", a letter a dimension, or "R,T,HD"
    layers: tuple[int, ...]
    shape: RowShape
    file: str | None = None
    room: int | None = None  # for more tokens, which are zeros
    order: str | None = None  # the axes of its elements, where dimensions do not tell them
    splits: Mapping[str, int] = field(default_factory=dict)  # lengths of t, u and d

    @property
    def lengths(self) -> dict[str, int]:
        """Of each letter of the binding's axes."""
        found = {**self._whole(), **self.splits}
        found["T"] //= found.get("t", 1) * found.get("u", 1)
        found["D"] //= found.get("d", 1)
        return {letter: found[letter] for letter in self.order or self.axes if letter != ","}

    @property
    def dimensions(self) -> tuple[int, ...]:
        groups = self.axes.split(",") if "," in self.axes else self.axes
        whole = self._whole()
        return tuple(math.prod(whole[letter] for letter in group) for group in groups)

    def _whole(self) -> dict[str, int]:
        found = self.shape.lengths(len(self.layers)) | {"R": len(self.roles)}
        return found | {"T": self.room or found["T"]}


@record
class Extra:
    """A small tensor that goes along, with its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


@record
class NewOther:
    """A tensor that goes along, its bytes still to come."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str | None = None


@record
class Arranged:
    """What a layout makes of a cache."""

    tensors: tuple[NewTensor, ...]
    extras: tuple[Extra, ...] = ()
    others: tuple[NewOther, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, object] = field(default_factory=dict)  # of its tensors in the header
    header: int = 0  # bytes of length and JSON, where they are filled up to more


Named: TypeAlias = tuple[str, str, tuple[int, ...]]  # name, dtype, shape
Arranger: TypeAlias = Callable[[Cache, Mapping[str, str]], Arranged]


def files_of(arranged: Arranged) -> Files:
    """The files that hold these tensors, their headers deterministic; ValueError: a name twice."""
    by_file: dict[str, list[Named]] = {}
    for new in arranged.tensors:
        named = (new.name, str(new.shape.dtype), new.dimensions)
        by_file.setdefault(new.file or "", []).append(named)
    first = min(by_file)
    by_file[first] += [(each.name, each.dtype, each.shape) for each in arranged.extras]
    for other in arranged.others:
        named = (other.name, other.dtype, other.shape)
        by_file.setdefault(other.file or first, []).append(named)
    return Files(_file(name or None, by_file[name], arranged) for name in sorted(by_file))


def _file(name: str | None, tensors: Sequence[Named], arranged: Arranged) -> File:
    names = [each for each, _, _ in tensors]
    if len(set(names)) < len(names):
        raise ValueError("a tensor of that name is there already")
    members = {each.name: arranged.members for each in arranged.tensors if each.file == name}
    header = new_header(tensors, arranged.metadata, members, arranged.header)
    return File(name, header.raw, header)


def binding_in(files: Files, new: NewTensor) -> Binding:
    """Where the files have the rows of a new tensor, its layers counted from 0."""
    tensor = files.tensor(new.name, new.file)
    axes = new.order or new.axes.replace(",", "")
    return Binding(tensor, new.roles, axes, new.lengths, stored=new.shape.tokens)


def one_shape(cache: Cache, role: Role) -> tuple[tuple[int, ...], RowShape] | None:
    """The layers of a role, which all have one shape; None where it has none."""
    layers = tuple(layer for each, layer in cache if each is role)
    shapes = {cache[role, layer] for layer in layers}
    if len(shapes) > 1:
        raise CannotHoldError(f"holds layers of one shape, these {role.word}s have {len(shapes)}")
    return (layers, shapes.pop()) if shapes else None


def both_roles(cache: Cache) -> dict[int, RowShape]:
    """The shape of each layer, where keys and values are alike and both there."""
    found: dict[int, RowShape] = {}
    for layer in sorted({layer for _, layer in cache}):
        shapes = {cache.get((role, layer)) for role in Role}
        shape = shapes.pop()
        if shapes or shape is None:
            raise CannotHoldError(f"needs keys and values of one shape, layer {layer} has not")
        found[layer] = shape
    return found

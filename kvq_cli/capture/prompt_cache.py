"""prompt_cache: the layers of a cache that mlx-lm saved, in either generation of its files.

Spec: formats/capture.md, sections "mlx" and "mlx-0.31".

A cache is a list of objects, one a layer, and the state of an object is a list too. Tensors are
named by their places in them: i.0 keys and i.1 values of layer i. The metadata names the class
of each object, on which the meaning of its state depends.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from kvq_cli.capture.adapter import Found, Told
from kvq_cli.capture.arranged import Cache, CannotHoldError, RowShape
from kvq_cli.capture.binding import Binding, Number, bound
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor, shown
from kvq_cli.record import record
from kvq_cli.words import Role

AXES: Final = "BHTD"
CLASS: Final = "KVCache"  # of every layer that is written
QUANTISED: Final = "QuantizedKVCache"
ENGINE: Final = "mlx-lm"
NAME: Final = re.compile(r"(?P<layer>0|[1-9][0-9]{0,5})\.(?P<place>.+)")
MOST: Final = 6  # classes that are named

State: TypeAlias = Mapping[str, Tensor]  # tensors by their places in it
# Such a number of a layer, by its place; None where it is not there or no number.
Teller: TypeAlias = Callable[[Files, State, int, int], Number | None]


@record
class Generation:
    """Where files of one generation tell what."""

    user: str  # what stands before keys of the user's metadata
    classes: str  # and before numbers of layers, where their classes are named
    counts: Mapping[str, int | None]  # classes with keys and values; where their tokens are told
    bits: tuple[int, int]  # where quantised ones tell their bits, and the size of groups
    number: Teller

    def plain(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """The user's own metadata."""
        start = len(self.user)
        return {key[start:]: text for key, text in metadata.items() if key.startswith(self.user)}


def recognised(files: Files, generation: Generation) -> Found | None:
    classes = _classes(files.metadata, generation.classes)
    states = _states(files, len(classes))
    if states is None:
        return None
    bindings: list[Binding] = []
    empty, untold = [], []
    for layer, (name, state) in enumerate(zip(classes, states, strict=True)):
        if name not in generation.counts:
            continue
        place = generation.counts[name]
        count = None if place is None else generation.number(files, state, layer, place)
        rows = _rows(state, layer)
        bindings += [replace(each, count=count) for each in rows]
        if not rows:
            empty.append(layer)
        elif place is not None and count is None:
            untold.append(layer)
    told = generation.plain(files.metadata) | {"engine": ENGINE, "cache_class": _listed(classes)}
    return Found(
        bindings=tuple(bindings),
        notes=(
            *_notes(classes, generation, empty, untold),
            *_quantised(files, classes, states, generation),
        ),
        doubt=None if bindings else _doubt(classes),
        # What is there already comes from the user of kvq.
        identity={key: text for key, text in told.items() if key not in files.metadata},
    )


def _classes(metadata: Mapping[str, str], before: str) -> list[str]:
    """The class of each layer."""
    found: list[str] = []
    while (name := metadata.get(f"{before}{len(found)}")) is not None:
        found.append(name)
    return found


def _states(files: Files, layers: int) -> list[dict[str, Tensor]] | None:
    """The tensors of each layer; None where one is none of a layer's."""
    states: list[dict[str, Tensor]] = [{} for _ in range(layers)]
    for tensor in files.tensors:
        match = NAME.fullmatch(tensor.name)
        if not match or int(match["layer"]) >= layers or tensor.file != files.tensors[0].file:
            return None
        states[int(match["layer"])][match["place"]] = tensor
    return states if any(states) else None


def _rows(state: State, layer: int) -> list[Binding]:
    """Keys and values; a layer that has seen no tokens has tensors of no bytes."""
    tensors = [(state.get(str(place)), role) for place, role in enumerate(Role)]
    bindings = [
        bound(tensor, role, AXES, layer) for tensor, role in tensors if tensor and tensor.nbytes
    ]
    return [each for each in bindings if each is not None]


def _notes(
    classes: Sequence[str], generation: Generation, empty: Sequence[int], untold: Sequence[int]
) -> list[str]:
    known = {*generation.counts, QUANTISED}
    others = [name for name in classes if name not in known]
    kept = f"are none whose keys and values kvq knows, and are kept as they are: {_listed(others)}"
    told = (
        (others, kept),
        (empty, "hold no keys and values, and are kept as they are"),
        (untold, "do not tell how many of their tokens count: all do"),
    )
    return [f"{len(which)} of {len(classes)} layers {what}" for which, what in told if which]


def _quantised(
    files: Files, classes: Sequence[str], states: Sequence[State], generation: Generation
) -> list[Told]:
    """What is told of layers that are quantised already; bits and groups are the first one's."""
    layers = [layer for layer, name in enumerate(classes) if name == QUANTISED]
    if not layers:
        return []
    first = layers[0]
    found = [generation.number(files, states[first], first, each) for each in generation.bits]
    numbers = [each for each in found if each is not None]
    how = " ({} bits, groups of {} channels)" if len(numbers) == len(found) else ""
    what = f"{len(layers)} of {len(classes)} layers are quantised already{how}"
    return [Told(f"{what}, and are kept as they are", tuple(numbers) if how else ())]


def _doubt(classes: Sequence[str]) -> str:
    if QUANTISED in classes:
        return "it is quantised already, and a second time would add to the error of the first"
    return f"no keys and values that kvq knows are in layers of {_listed(classes)}"


def _listed(names: Sequence[str]) -> str:
    """Names, once each."""
    once = [shown(name) for name in dict.fromkeys(names)]
    return ", ".join(once[:MOST]) + (", ..." if len(once) > MOST else "")


def whole_layers(cache: Cache) -> list[tuple[int, Mapping[Role, RowShape]]]:
    """The layers to be written; such a cache counts them from 0, and tokens for all alike."""
    layers: dict[int, dict[Role, RowShape]] = {}
    for (role, layer), shape in cache.items():
        layers.setdefault(layer, {})[role] = shape
    for layer, roles in layers.items():
        if len(roles) < len(Role):
            raise CannotHoldError(f"needs keys and values of each layer, {layer} has not both")
    tokens = sorted({shape.tokens for shape in cache.values()})
    if len(tokens) > 1:
        held = f"{tokens[0]} to {tokens[-1]}"
        raise CannotHoldError(f"tells positions by numbers of tokens, and layers hold {held}")
    return sorted(layers.items())

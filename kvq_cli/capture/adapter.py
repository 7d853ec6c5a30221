"""adapter: what a layout of captures is: how it is recognised, and how it is written.

Spec: formats/capture.md, section "Layouts".

A layout is a file of this package with an ADAPTER, and a line in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeAlias

from kvq_cli.capture.arranged import Arranger, NewOther
from kvq_cli.capture.binding import Binding, Number
from kvq_cli.capture.files import Files
from kvq_cli.record import record


@record
class Told:
    """A note with numbers of the capture in it: "{} bits"."""

    text: str
    numbers: tuple[Number, ...]


@record
class Found:
    """What an adapter makes of a capture's tensors."""

    bindings: tuple[Binding, ...]
    notes: tuple[str | Told, ...] = ()
    doubt: str | None = None  # why it is not known where rows lie: then nothing is bound
    identity: Mapping[str, str] = field(default_factory=dict)  # beside what the metadata says


Recogniser: TypeAlias = Callable[[Files], Found | None]
Plainer: TypeAlias = Callable[[Mapping[str, str]], dict[str, str]]


@record
class Adapter:
    """One layout; `recognise` looks at names, shapes and metadata alone."""

    recognise: Recogniser
    arrange: Arranger | None = None  # None: it is not written, but where it comes from
    folder: bool = False  # it is written as a folder
    named: bool = False  # it is only tried where the user names it
    rewritten: bool = False  # a slice is arranged anew, not cut tensor by tensor
    own: Callable[[NewOther], bool] | None = None  # tensors that other layouts do not take
    plain: Plainer | None = None  # metadata as other layouts have it
    alone: bool = False  # there is no place for tensors beside keys and values
    renumbers: bool = False  # layers are counted from 0 where it is written

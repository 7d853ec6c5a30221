"""adapter: what a layout of captures is: how it is recognised, and how it is written.

Spec: formats/capture.md, section "Layouts".

A layout is a file of this package with an ADAPTER, and a line in `ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TypeAlias

from kvq_cli.capture.arranged import Arranger
from kvq_cli.capture.binding import Binding
from kvq_cli.capture.files import Files
from kvq_cli.record import record


@record
class Found:
    """What an adapter makes of a capture's tensors."""

    bindings: tuple[Binding, ...]
    notes: tuple[str, ...] = ()
    doubt: str | None = None  # why it is not known where rows lie: then nothing is bound
    identity: Mapping[str, str] = field(default_factory=dict)  # beside what the metadata says
    layout: str | None = None  # the layout that it turned out to be, where not the adapter's own


Recogniser: TypeAlias = Callable[[Files], Found | None]


@record
class Adapter:
    """One layout; `recognise` looks at names, shapes and metadata alone."""

    recognise: Recogniser
    arrange: Arranger | None = None  # None: it is not written, but where it comes from
    folder: bool = False  # it is written as a folder
    named: bool = False  # it is only tried where the user names it
    rewritten: bool = False  # a slice is arranged anew, not cut tensor by tensor
    renumbers: bool = False  # layers are counted from 0 where it is written
    own: Callable[[str], bool] | None = None  # names of tensors that other layouts do not take

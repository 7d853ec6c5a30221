"""compared: the capture that a container may come from, read as that one was.

Spec: formats/report.md, section "verify".

A layout that kvq recognises says where rows lie, whatever the container says. Where it does
not, as of a layout map that is not at hand, the container's header tells it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from kvq_cli.capture import ADAPTERS, Capture, Source, check_headers, open_capture
from kvq_cli.capture.adapter import Found
from kvq_cli.capture.binding import Binding
from kvq_cli.capture.layout import bind
from kvq_cli.capture.widened import CODES
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import CaptureError
from kvq_cli.steps.inputs import source_input, wide_source
from kvq_cli.steps.promised import binding_of


@contextmanager
def its_capture(path: Path, manifest: Manifest) -> Iterator[Capture]:
    """The capture in a file or folder, bound as a container has it."""
    with source_input(path) as opened:
        source = _wide(opened, manifest)
        yield _recognised(source, manifest.layout) or _as_told(source, manifest)


def _wide(source: Source, manifest: Manifest) -> Source:
    """The source as the container took it: 8-bit floats that the container lacks were F16."""
    narrow = any(each.dtype in CODES for each in source.files.tensors)
    kept = any(each.dtype in CODES for each in manifest.tensors)
    return wide_source(source) if narrow and not kept else source


def _recognised(source: Source, layout: str) -> Capture | None:
    """By the layout that is recorded; None where it leaves doubts."""
    if layout not in ADAPTERS:
        return None
    try:
        capture = open_capture(source, layout)
    except CaptureError as error:
        if error.error_id != "E204":
            raise
        return None
    return capture if capture.doubt is None else None


def _as_told(source: Source, manifest: Manifest) -> Capture:
    """By the container's rows; by none of them where those make no whole layers here."""
    check_headers(source.files)
    found = Found(tuple(_bindings(source, manifest)), identity=manifest.identity)
    try:
        return bind(source, manifest.layout, found)
    except CaptureError as error:
        if error.error_id != "E202":
            raise
        return bind(source, manifest.layout, Found(()))


def _bindings(source: Source, manifest: Manifest) -> Iterator[Binding]:
    """Of each tensor that has the file, name, dtype and shape of one with rows."""
    files = [each.name for each in manifest.files or ()] or [""]
    entries = {(files[each.file], each.name): each for each in manifest.tensors}
    for tensor in source.files.tensors:
        entry = entries.get((source.files.name_of(tensor), tensor.name))
        if entry is None or (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            continue
        if entry.rows is not None:
            # What lies behind its tokens must be zeros here too.
            told = binding_of(entry.rows, tensor)
            yield replace(told, stored=None, count=entry.rows.tokens)

"""capture: KV tensors in a safetensors file, as slabs that pages are read from.

Spec: formats/capture.md.

A header is parsed strictly (header) and shown to the official parser (gatekeeper); one
adapter says which tensors are keys and values; the checks of layout make it a Capture. No
data is read before a page asks for it (source, slab). writer makes headers of new files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from kvq_cli.capture import canonical, gatekeeper, per_layer
from kvq_cli.capture.foreign import refuse_weights
from kvq_cli.capture.header import Header, shown
from kvq_cli.capture.layout import Binding, Capture, bind
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError, UsageError

__all__ = ["ADAPTERS", "Capture", "Source", "open_capture"]

Adapter: TypeAlias = Callable[[Header], tuple[Binding, ...] | None]

# Closed: a name from a file or a user selects code only through this table.
ADAPTERS: Final[Mapping[str, Adapter]] = {
    "canonical": canonical.recognise,
    "per_layer": per_layer.recognise,
}
MAX_LISTED: Final = 6


def open_capture(file: Source | str | os.PathLike[str] | int, layout: str | None = None) -> Capture:
    """The capture in a file, by the one adapter that fits or by the named one."""
    if layout is not None and layout not in ADAPTERS:
        known = ", ".join(ADAPTERS)
        raise UsageError("E101", f'no layout "{shown(layout)}", there are: {known}')
    source = file if isinstance(file, Source) else Source(file)
    try:
        gatekeeper.check(source.header)
        name, bindings = _recognise(source.header, [layout] if layout else list(ADAPTERS))
        return bind(source, name, bindings)
    except BaseException:
        if source is not file:
            source.close()
        raise


def _recognise(header: Header, names: list[str]) -> tuple[str, tuple[Binding, ...]]:
    fits = [(name, found) for name in names if (found := ADAPTERS[name](header))]
    if len(fits) == 1:
        return fits[0]
    if fits:
        candidates = ", ".join(name for name, _ in fits)
        raise CaptureError("E204", f"more than one layout fits, name one of: {candidates}")
    refuse_weights(tensor.name for tensor in header.tensors)
    tensors = [f'"{shown(tensor.name)}" {list(tensor.shape)}' for tensor in header.tensors]
    listed = ", ".join(tensors[:MAX_LISTED]) or "none"
    rest = len(tensors) - MAX_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    raise CaptureError(
        "E204", f"no layout of {', '.join(names)} fits these tensors: {listed}{more}"
    )

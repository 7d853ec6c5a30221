"""capture: KV tensors in a safetensors file, as slabs that pages are read from.

Spec: formats/capture.md.

A header is parsed strictly (header) and shown to the official parser (gatekeeper); one
adapter says which tensors are keys and values; the checks of layout make it a Capture. No
data is read before a page asks for it (source, slab). writer makes headers of new files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kvq_cli.capture import canonical, gatekeeper, hf, lmcache, mapped, mlx, mlx_031, vllm_dump
from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.files import Files
from kvq_cli.capture.folder import Folder, is_index
from kvq_cli.capture.foreign import refuse_weights
from kvq_cli.capture.header import shown
from kvq_cli.capture.layout import Capture, bind
from kvq_cli.capture.layout_map import load_map
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError, UsageError

__all__ = ["ADAPTERS", "Capture", "Source", "open_capture", "open_source"]

# Closed: a name from a file or a user selects code only through this table.
ADAPTERS: Final[Mapping[str, Adapter]] = {
    "canonical": canonical.ADAPTER,
    "hf": hf.ADAPTER,
    "mlx": mlx.ADAPTER,
    "mlx-0.31": mlx_031.ADAPTER,
    "vllm_dump": vllm_dump.ADAPTER,
    "vllm": vllm_dump.FUSED,
    "vllm_split": vllm_dump.SPLIT,
    "vllm_cpu": vllm_dump.PACKED,
    "vllm_mla": vllm_dump.LATENT,
    "lmcache": lmcache.ADAPTER,
}
MAX_LISTED: Final = 6
MAP_PREFIX: Final = "map:"
MAP_SUFFIX: Final = ".json"


def open_source(path: str | os.PathLike[str]) -> Source:
    """A safetensors file, a folder of them, or the files that an index names."""
    whole = Path(path)
    return Folder(path) if whole.is_dir() or is_index(whole) else Source(path)


def open_capture(
    file: Source | str | os.PathLike[str],
    layout: str | None = None,
    told: Mapping[str, str] | None = None,
) -> Capture:
    """The capture in a file or folder, by the one adapter that fits or by the named one.

    A layout map is named by its file: FILE.json, or map:FILE. What the user has `told` counts
    like metadata of the file, and before it.
    """
    source = file if isinstance(file, Source) else open_source(file)
    try:
        check_headers(source.files)
        source.files.tell(told or {})
        name, found = recognised(source.files, layout)
        return bind(source, name, found)
    except BaseException:
        if source is not file:
            source.close()
        raise


def check_headers(files: Files) -> None:
    """Show every header to the official parser, once."""
    for each in files.files if not files.checked else ():
        if each.header is not None:
            gatekeeper.check(each.header)
    files.checked = True


def adapters_for(layout: str | None) -> Mapping[str, Adapter]:
    """The layout that is named, or all that are tried unasked."""
    if layout is None:
        return {name: each for name, each in ADAPTERS.items() if not each.named}
    if layout.startswith(MAP_PREFIX) or layout.endswith(MAP_SUFFIX):
        return {mapped.NAME: mapped.adapter_of(load_map(layout.removeprefix(MAP_PREFIX)))}
    if layout not in ADAPTERS:
        known = f"{', '.join(ADAPTERS)}, and layout maps, FILE{MAP_SUFFIX}"
        raise UsageError("E101", f'no layout "{shown(layout)}", there are: {known}')
    return {layout: ADAPTERS[layout]}


def recognised(files: Files, layout: str | None = None) -> tuple[str, Found]:
    """The one layout that fits, or the named one, and what it makes of the tensors."""
    tried = adapters_for(layout)
    fits = [(name, found) for name, each in tried.items() if (found := each.recognise(files))]
    if len(fits) == 1:
        name, found = fits[0]
        return found.layout or name, found
    if fits:
        candidates = ", ".join(name for name, _ in fits)
        raise CaptureError("E204", f"more than one layout fits, name one of: {candidates}")
    refuse_weights(tensor.name for tensor in files.tensors)
    tensors = [f'"{shown(files.label(tensor))}" {list(tensor.shape)}' for tensor in files.tensors]
    listed = ", ".join(tensors[:MAX_LISTED]) or "none"
    rest = len(tensors) - MAX_LISTED
    more = f" and {rest} more" if rest > 0 else ""
    hint = "" if layout else "; inspect --guess proposes a layout map"
    why = f"no layout of {', '.join(tried)} fits these tensors: {listed}{more}{hint}"
    raise CaptureError("E204", why)

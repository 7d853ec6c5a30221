"""beside: what goes along with keys and values into new files: other tensors, and metadata.

Spec: formats/capture.md, section "Writing".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvq_cli import jsontext
from kvq_cli.capture import ADAPTERS
from kvq_cli.capture.arranged import NewOther
from kvq_cli.capture.header import shown
from kvq_cli.container.manifest import Manifest
from kvq_cli.errors import UsageError
from kvq_cli.steps.select import Selection

SOURCE: Final = "source"
# Metadata that a slice or another layout makes untrue.
STALE: Final = ("tokens", "layers", "kv_heads", "dtype", "layer_indices")
STALE_HEADS: Final = ("query_heads", "attention_kind")


def written(manifest: Manifest, layout: str) -> str:
    """The name of the layout that is written."""
    return manifest.layout if layout == SOURCE else layout


def others_of(manifest: Manifest, layout: str) -> dict[int, NewOther]:
    """Tensors that are not stored as pages, by number: those of the source's own files."""
    names = manifest.files
    adapter = ADAPTERS.get(manifest.layout)
    own = adapter.own if adapter and (layout != SOURCE or adapter.rewritten) else None
    others = {
        at: NewOther(
            each.name,
            each.dtype,
            each.shape,
            names[each.file].name if names and layout == SOURCE else None,
        )
        for at, each in enumerate(manifest.tensors)
        if each.rows is None
    }
    return {at: each for at, each in others.items() if not (own and own(each))}


def check_place(manifest: Manifest, layout: str, carried: Mapping[int, NewOther]) -> None:
    """Whoever reads some layouts takes every tensor for one of theirs."""
    name = written(manifest, layout)
    adapter = ADAPTERS.get(name)
    if adapter and adapter.alone and carried:
        first = shown(next(iter(carried.values())).name)
        raise UsageError(
            "E101",
            f"layout {name} has no place for tensors that are no keys and values, such as "
            f'"{first}"; --tokens : leaves them out',
        )


def metadata_of(
    metadata: Mapping[str, str], manifest: Manifest, selection: Selection, layout: str
) -> dict[str, str]:
    source = ADAPTERS.get(manifest.layout)
    if source and source.plain and (layout != SOURCE or source.rewritten):
        metadata = source.plain(metadata)
    stale = {*STALE, *(STALE_HEADS if selection.cuts_heads else ())}
    if layout != SOURCE:
        stale.add("layout")  # a slice keeps the axes that it spells out
    kept = {key: text for key, text in metadata.items() if key not in stale}
    found = {layer for role in selection.roles for layer in selection.layers(manifest, role)}
    layers = sorted(found)
    anew = layout != SOURCE and ADAPTERS[layout].renumbers
    renumbered = anew and layers != list(range(len(layers)))
    if renumbered or (selection.cuts_layers and layout != "hf"):
        kept["layer_indices"] = jsontext.canonical(layers)
    return kept

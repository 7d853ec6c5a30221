"""narrow: the tokens of a whole cache that a segment stores, as a capture of their own.

Spec: formats/container.md, section "Segments".

The rows stay where they are. What the container says of its source is the header that a
restored segment gets: that of the layout `hf`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from kvq_cli.capture import Capture, hf
from kvq_cli.capture.arranged import Cache, RowShape, binding_in, files_of
from kvq_cli.capture.layout import LayerShape
from kvq_cli.capture.slab import Slab
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import ExpectationError, UsageError
from kvq_cli.steps.beside import plain_metadata
from kvq_cli.steps.chain import Link
from kvq_cli.steps.comparison import source_digest
from kvq_cli.words import Role

STALE = ("tokens", "layers", "kv_heads", "dtype", "layout")


def segment_of(capture: Capture, chain: Sequence[Link], *, full: bool) -> Capture:
    """What a segment stores of a capture: all of it or, if it is `full`, what the chain lacks."""
    if not chain:
        if full:
            raise UsageError("E101", "--full goes with --continues")
        return capture
    chain[-1].check(capture)
    return _after(capture, chain) if full else capture


def _after(capture: Capture, chain: Sequence[Link]) -> Capture:
    """What comes behind the chain in a capture of all tokens, whose beginning is the chain's."""
    begin = chain[-1].end
    for layer in capture.layers:
        if layer.tokens <= begin:
            what = f"layer {layer.layer} has {layer.tokens} tokens, the chain has {begin} already"
            raise ExpectationError("E808", f"--full: {what}; new tokens alone go without --full")
    for link in chain:
        _check_beginning(capture, link)
    return narrowed(capture, begin)


def narrowed(capture: Capture, begin: int) -> Capture:
    """The capture from a token on."""
    layers = tuple(replace(layer, tokens=layer.tokens - begin) for layer in capture.layers)
    metadata = plain_metadata(capture.source.files.metadata, capture.layout)
    kept = {key: text for key, text in metadata.items() if key not in STALE}
    arranged = hf.arrange(_cache(layers), kept)
    files = files_of(arranged)
    bindings = [
        replace(binding_in(files, new), first_layer=new.layers[0]) for new in arranged.tensors
    ]
    return replace(
        capture,
        layout="hf",
        files=files,
        bindings=tuple(bindings),
        slabs={place: _shifted(slab, begin) for place, slab in capture.slabs.items()},
        layers=layers,
        others=(),
    )


def _cache(layers: tuple[LayerShape, ...]) -> Cache:
    return {
        (role, layer.layer): RowShape(layer.batch, layer.heads, layer.tokens, *size)
        for role in Role
        for layer in layers
        if (size := layer.roles.get(role)) is not None
    }


def _shifted(slab: Slab, begin: int) -> Slab:
    """The slab from a token on."""
    if slab.block:
        raise ExpectationError("E808", "--full: tokens in blocks are not cut; convert them first")
    moved = begin * slab.token_stride
    starts = slab.starts
    if isinstance(starts, range):
        starts = range(starts.start + moved, starts.stop + moved, starts.step)
    else:
        starts = tuple(start + moved for start in starts)
    return replace(slab, starts=starts, tokens=slab.tokens - begin)


def _check_beginning(capture: Capture, link: Link) -> None:
    """ExpectationError E808 where the rows of a container of the chain are others here."""
    with ByteSource.open(link.path) as source:
        reader = Reader(source)
        for entry in reader.entries():
            key, begin = entry.record.key, link.manifest.token_offset
            heads = reader.manifest.head_sets[key.head_set]
            moved = replace(key, start=begin + key.start, stop=begin + key.stop)
            if source_digest(capture, heads, moved) != entry.source_digest:
                rows = f"{key.role.word}, {key.layer_words}, tokens {moved.start} on"
                what = f"{rows} are not those of the chain"
                raise ExpectationError("E808", f"--full: {what}")

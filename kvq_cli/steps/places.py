"""places: where a page lies, for codecs that treat places differently.

Spec: formats/codecs/transform.md, section "Positions".

Layers with fewer tokens than others have forgotten the first ones: their last tokens are the
last of the text.
"""

from __future__ import annotations

from dataclasses import replace

from kvq_cli.codecs import Codec
from kvq_cli.container.manifest import Manifest
from kvq_cli.words import PageKey, PageSpec, Place


def placed(spec: PageSpec, key: PageKey, codec: Codec, manifest: Manifest) -> PageSpec:
    """The spec of a page, with its place where the codec asks for it."""
    if not codec.placed:
        return spec
    tokens = manifest.parts_by_layer()[key.layer].tokens
    longest = max(part.tokens for part in manifest.parts)
    position = manifest.token_offset + longest - tokens + key.start
    return replace(spec, place=Place(key.role, key.layer, key.layers, position))

"""hf: a tensor for each layer and role, as dumps of transformers' caches are named.

Spec: formats/capture.md, section "hf".

    layers.N.key|value                [batch, kv_heads, tokens, head_dim], or without batch
    layers.N.keys|values
    layer_N_key|value                 several MLX servers and prefix caches
    layer_N_keys|values
    past_key_values.N.key|value       ONNX pipelines
    past_key_values_N_key|value       CoreML and NPU pipelines
    key_cache.N, value_cache.N        OpenVINO
    past_key_values.N.0|1             flattened tuples
    K_layerN, V_layerN                [tokens, kv_heads, head_dim]
    k_N, v_N
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import Arranged, Cache, NewTensor
from kvq_cli.capture.binding import bound
from kvq_cli.capture.facts import axes_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor
from kvq_cli.words import Role

AXES: Final = "BHTD"
LAYER: Final = r"(?P<layer>0|[1-9][0-9]{0,5})"
# A pattern of names, and the usual order of their axes.
SPELLINGS: Final[Mapping[re.Pattern[str], str]] = {
    re.compile(spelling.replace("N", LAYER)): axes
    for spelling, axes in {
        r"layers\.N\.(?:(?P<key>key)|value)": AXES,
        r"layers\.N\.(?:(?P<key>keys)|values)": AXES,
        r"layer_N_(?:(?P<key>key)|value)": AXES,
        r"layer_N_(?:(?P<key>keys)|values)": AXES,
        r"past_key_values\.N\.(?:(?P<key>key)|value)": AXES,
        r"past_key_values\.N\.(?:(?P<key>0)|1)": AXES,
        r"past_key_values_N_(?:(?P<key>key)|value)": AXES,
        r"(?:(?P<key>key)|value)_cache\.N": AXES,
        r"(?:(?P<key>K)|V)_layerN": "BTHD",
        r"(?:(?P<key>k)|v)_N": AXES,
    }.items()
}


def recognise(files: Files) -> Found | None:
    spellings = [(named, axes) for one, axes in SPELLINGS.items() if (named := _named(files, one))]
    if len(spellings) != 1:
        return None
    named, usual = spellings[0]
    bindings = []
    for tensor, role, layer in named:
        axes = axes_of(files.metadata, usual, len(tensor.shape))
        binding = bound(tensor, role, axes, layer) if axes else None
        if binding is None:
            return None
        bindings.append(binding)
    return Found(tuple(bindings))


def _named(files: Files, spelling: re.Pattern[str]) -> list[tuple[Tensor, Role, int]]:
    found = []
    for tensor in files.tensors:
        if match := spelling.fullmatch(tensor.name):
            role = Role.KEY if match["key"] else Role.VALUE
            found.append((tensor, role, int(match["layer"])))
    return found


def arrange(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """layers.N.key and layers.N.value."""
    tensors = [
        NewTensor(f"layers.{layer}.{role.word}", (role,), AXES, (layer,), shape)
        for (role, layer), shape in cache.items()
    ]
    return Arranged(tuple(tensors), metadata=metadata)


ADAPTER: Final = Adapter(recognise, arrange)

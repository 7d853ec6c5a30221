"""per_layer: a tensor for each layer and role, as dumps of transformers' caches are named.

Spec: formats/capture.md, section "per_layer".

    layers.N.key|value                [batch, kv_heads, tokens, head_dim], or without batch
    layers.N.keys|values
    layer_N_key|value                 several MLX servers and prefix caches
    layer_N_keys|values
    past_key_values.N.key|value       ONNX pipelines
    past_key_values_N_key|value       CoreML and NPU pipelines
    key_cache.N, value_cache.N        OpenVINO
    k_N, v_N
"""

from __future__ import annotations

import re
from typing import Final

from kvq_cli.capture.facts import axes_of
from kvq_cli.capture.header import Header, Tensor
from kvq_cli.capture.layout import Binding
from kvq_cli.words import Role

AXES: Final = "BHTD"
LAYER: Final = r"(?P<layer>0|[1-9][0-9]{0,5})"
SPELLINGS: Final = tuple(
    re.compile(spelling.replace("N", LAYER))
    for spelling in (
        r"layers\.N\.(?:(?P<key>key)|value)",
        r"layers\.N\.(?:(?P<key>keys)|values)",
        r"layer_N_(?:(?P<key>key)|value)",
        r"layer_N_(?:(?P<key>keys)|values)",
        r"past_key_values\.N\.(?:(?P<key>key)|value)",
        r"past_key_values_N_(?:(?P<key>key)|value)",
        r"(?:(?P<key>key)|value)_cache\.N",
        r"(?:(?P<key>k)|v)_N",
    )
)


def recognise(header: Header) -> tuple[Binding, ...] | None:
    spellings = [found for spelling in SPELLINGS if (found := _spelled(header, spelling))]
    if len(spellings) != 1:
        return None
    bindings = []
    for tensor, role, layer in spellings[0]:
        axes = axes_of(header.metadata, AXES, len(tensor.shape))
        if axes is None:
            return None
        bindings.append(Binding(tensor, role, axes, layer))
    return tuple(bindings)


def _spelled(header: Header, spelling: re.Pattern[str]) -> list[tuple[Tensor, Role, int]]:
    found = []
    for tensor in header.tensors:
        if match := spelling.fullmatch(tensor.name):
            role = Role.KEY if match["key"] else Role.VALUE
            found.append((tensor, role, int(match["layer"])))
    return found

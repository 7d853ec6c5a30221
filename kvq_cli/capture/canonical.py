"""canonical: whole roles in one tensor each, `key` and `value`.

Spec: formats/capture.md, section "canonical".

    key, value   [batch, layers, kv_heads, tokens, head_dim], or without batch
"""

from __future__ import annotations

from kvq_cli.capture.facts import axes_of
from kvq_cli.capture.header import Header
from kvq_cli.capture.layout import Binding
from kvq_cli.words import Role

AXES = "BLHTD"


def recognise(header: Header) -> tuple[Binding, ...] | None:
    bindings = []
    for tensor in header.tensors:
        if tensor.name not in ("key", "value"):
            continue
        axes = axes_of(header.metadata, AXES, len(tensor.shape))
        if axes is None:
            return None
        bindings.append(Binding(tensor, Role[tensor.name.upper()], axes, 0))
    return tuple(bindings) or None

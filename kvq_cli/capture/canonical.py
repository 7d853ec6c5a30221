"""canonical: whole roles in one tensor each, `key` and `value`.

Spec: formats/capture.md, section "canonical".

    key, value   [batch, layers, kv_heads, tokens, head_dim], or without batch
"""

from __future__ import annotations

from collections.abc import Mapping

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import Arranged, Cache, CannotHoldError, NewTensor, one_shape
from kvq_cli.capture.binding import bound
from kvq_cli.capture.facts import axes_of
from kvq_cli.capture.files import Files
from kvq_cli.words import Role

AXES = "BLHTD"


def recognise(files: Files) -> Found | None:
    bindings = []
    for tensor in files.tensors:
        if tensor.name not in ("key", "value"):
            continue
        axes = axes_of(files.metadata, AXES, len(tensor.shape))
        binding = bound(tensor, Role[tensor.name.upper()], axes) if axes else None
        if binding is None:
            return None
        bindings.append(binding)
    return Found(tuple(bindings)) if bindings else None


def arrange(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """Layers have no names: a gap in one role would move its layers."""
    found = {role: shape for role in Role if (shape := one_shape(cache, role))}
    if len({layers for layers, _ in found.values()}) > 1:
        raise CannotHoldError("numbers layers from 0, keys and values have different ones")
    tensors = [
        NewTensor(role.word, (role,), AXES, layers, shape)
        for role, (layers, shape) in found.items()
    ]
    return Arranged(tuple(tensors), metadata=metadata)


ADAPTER = Adapter(recognise, arrange, renumbers=True)

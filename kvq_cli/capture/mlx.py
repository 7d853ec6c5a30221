"""mlx: prompt caches of mlx-lm from 0.32 on: whole buffers, and how many tokens count.

Spec: formats/capture.md, section "mlx".

    i.0, i.1    keys and values of layer i, [batch, kv_heads, room for tokens, head_dim]
    i.2, ...    numbers of the layer, each a tensor without dimensions; i.2 is its offset
    metadata    0.KEY the user's, 1.i class of layer i, 2.0 "", 2.n.0 and 2.n.1 name and kind of
                the nth tensor that is a number
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import (
    Arranged,
    Cache,
    CannotHoldError,
    Extra,
    NewOther,
    NewTensor,
)
from kvq_cli.capture.binding import Number, is_number
from kvq_cli.capture.files import Files
from kvq_cli.capture.prompt_cache import AXES, CLASS, Generation, State, recognised, whole_layers

STEP: Final = 256  # tokens by which the buffers grow
OFFSET: Final = 2
MAX_OFFSET: Final = 2**31 - 1
OWN: Final = re.compile(r"(?:0|[1-9][0-9]*)\.[2-9]")


def _number(files: Files, state: State, layer: int, place: int) -> Number | None:
    del files, layer
    tensor = state.get(str(place))
    return tensor if tensor and is_number(tensor) else None


GENERATION: Final = Generation(
    user="0.",
    classes="1.",
    counts={
        CLASS: OFFSET,
        "ConcatenateKVCache": None,
        "RotatingKVCache": OFFSET,
        "ChunkedKVCache": OFFSET,
        "BatchKVCache": 4,
        "BatchRotatingKVCache": 5,
    },
    bits=(4, 3),
    number=_number,
)


def recognise(files: Files) -> Found | None:
    # The list of numbers begins with an empty text, so that it is never empty.
    return recognised(files, GENERATION) if files.metadata.get("2.0") == "" else None


def arrange(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """Buffers with room as mlx-lm makes it, behind the tokens zeros."""
    tensors, extras = [], []
    told = {f"{GENERATION.user}{key}": text for key, text in metadata.items()} | {"2.0": ""}
    for at, (layer, roles) in enumerate(whole_layers(cache)):
        for role, shape in sorted(roles.items()):
            room = -(-shape.tokens // STEP) * STEP
            new = NewTensor(f"{at}.{role.value}", (role,), AXES, (layer,), shape, room=room)
            tensors.append(new)
        offset = f"{at}.{OFFSET}"
        extras.append(Extra(offset, "I32", (), _offset(shape.tokens)))
        told |= {f"{GENERATION.classes}{at}": CLASS}
        told |= {f"2.{at + 1}.0": offset, f"2.{at + 1}.1": "scalar"}
    return Arranged(tuple(tensors), tuple(extras), metadata=told)


def _offset(tokens: int) -> bytes:
    if tokens > MAX_OFFSET:
        raise CannotHoldError(f"counts tokens up to {MAX_OFFSET}, a layer has {tokens}")
    return tokens.to_bytes(4, "little")


def own(tensor: NewOther) -> bool:
    """A number of a layer."""
    return tensor.shape == () and bool(OWN.fullmatch(tensor.name))


ADAPTER: Final = Adapter(
    recognise,
    arrange,
    rewritten=True,
    own=own,
    plain=GENERATION.plain,
    alone=True,
    renumbers=True,
)

"""mlx_031: prompt caches of mlx-lm up to 0.31: tensors of the tokens that count.

Spec: formats/capture.md, section "mlx-0.31".

    i.0, i.1    keys and values of layer i, [batch, kv_heads, tokens, head_dim]
    metadata    0.i "", or 0.i.n the nth number of layer i; 1.KEY the user's; 2.i class of layer i
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import Arranged, Cache, NewTensor
from kvq_cli.capture.binding import Number
from kvq_cli.capture.files import Files
from kvq_cli.capture.prompt_cache import AXES, CLASS, Generation, State, recognised, whole_layers

DECIMAL: Final = re.compile(r"0|[1-9][0-9]{0,12}")


def _number(files: Files, state: State, layer: int, place: int) -> Number | None:
    del state
    text = files.metadata.get(f"0.{layer}.{place}", "")
    return int(text) if DECIMAL.fullmatch(text) else None


GENERATION: Final = Generation(
    user="1.",
    classes="2.",
    counts={
        CLASS: None,
        "ConcatenateKVCache": None,
        "RotatingKVCache": 2,
        "ChunkedKVCache": None,
        "BatchKVCache": None,
        "BatchRotatingKVCache": 1,
    },
    bits=(2, 1),
    number=_number,
)


def recognise(files: Files) -> Found | None:
    return recognised(files, GENERATION) if files.metadata.get("2.0") else None


def arrange(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    layers = list(enumerate(whole_layers(cache)))
    tensors = [
        NewTensor(f"{at}.{role.value}", (role,), AXES, (layer,), shape)
        for at, (layer, roles) in layers
        for role, shape in sorted(roles.items())
    ]
    told = {f"{GENERATION.user}{key}": text for key, text in metadata.items()}
    told |= {f"0.{at}": "" for at, _ in layers}
    told |= {f"{GENERATION.classes}{at}": CLASS for at, _ in layers}
    return Arranged(tuple(tensors), metadata=told)


ADAPTER: Final = Adapter(
    recognise,
    arrange,
    rewritten=True,
    plain=GENERATION.plain,
    alone=True,
    renumbers=True,
)

"""turboquant-kv: TurboQuant's second algorithm in torch, codes in eight bytes, signs in floats.

It takes keys and values together; each call here gives it half of the rows as either.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any, Final

import torch

from benchmarks.methods import Later, Method, apart, nbytes, packed

PACKAGES: Final = ("turboquant-kv", "torch")
set_threads = torch.set_num_threads
core: Final = apart("turboquant-kv", "turboquant.core")
# One entry a tool, a shape and a number of threads; past the limit torch runs uncompiled.
torch._dynamo.config.recompile_limit = 64  # noqa: SLF001 - torch has no other name for it


@cache
def tool(fast: bool, bits: int, channels: int) -> Any:
    return core.TurboQuantProd(
        bits,
        channels,
        "cpu",
        seed=0,
        dtype=torch.bfloat16 if fast else torch.float32,
        use_torch_compile=fast,
    )


def encode(fast: bool, bits: int, block: Any) -> tuple[bool, int, Any]:
    rows = torch.from_numpy(block).reshape(-1, block.shape[-1])
    keys, values = rows.chunk(2)
    return fast, bits, tool(fast, bits, block.shape[-1]).quantize_kv(keys, values)


def decode(encoded: tuple[bool, int, Any]) -> Any:
    fast, bits, parts = encoded
    found = tool(fast, bits, parts["k_idx"].shape[-1]).decompress(parts)
    return [Later(each) if fast else each.numpy() for each in found]


def stored(encoded: tuple[bool, int, Any]) -> int:
    """All bits of codes and signs, and norms as they are."""
    _, bits, parts = encoded
    codes = parts["k_idx"].numel() + parts["v_idx"].numel()
    norms = [part for name, part in parts.items() if name.endswith(("norm", "gamma"))]
    return packed(codes, bits) + nbytes(norms)


def held(encoded: tuple[bool, int, Any]) -> int:
    return nbytes(encoded[2])


def methods(_heads: int) -> list[Method]:
    return [
        Method(
            f"turboquant-kv prod {bits}{', compiled' if fast else ''}",
            partial(encode, fast, bits),
            decode,
            stored,
            held,
            note="in BF16, by torch.compile; gives BF16" if fast else "",
        )
        for fast in (False, True)
        for bits in (4, 3, 2)
    ]

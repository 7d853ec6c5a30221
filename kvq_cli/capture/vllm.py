"""vllm: what the files of a vLLM dump hold, where it is known, and how they are written.

Spec: formats/capture.md, section "vllm" and those behind it.

    vllm         [tokens, kv_heads, 2 · head_dim]      keys, then values, of each head
    vllm_split   [2, tokens, kv_heads · head_dim]      heads are not told
    vllm_cpu     [tokens, kv_heads, 2 · head_dim]      but packed, see below
    vllm_mla     [tokens, channels]                    latents, which are neither

The CPU backend has a buffer for each head and block of tokens: keys as [head_dim, block], then
values as [block, head_dim]. Its rows of 2 · head_dim elements lie in the file as if each were
a token's. So block must divide 2 · head_dim, and a row holds 2 tokens of values, or
2 · head_dim / block channels of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, TypeAlias

from kvq_cli.capture.adapter import Found
from kvq_cli.capture.arranged import Arranged, Cache, CannotHoldError, NewTensor, both_roles
from kvq_cli.capture.binding import Binding, bound
from kvq_cli.capture.facts import count_of
from kvq_cli.capture.header import Tensor
from kvq_cli.words import Role

TENSOR: Final = "kv_cache"
FILE: Final = "model.layers.{}.self_attn.attn.safetensors"
BOTH: Final = (Role.KEY, Role.VALUE)
FUSED, SPLIT, LATENT = "T,H,RD", "R,T,HD", "TD"
PACKED: Final = "TRDHdtu,TRtHuDd"
BLOCK: Final = 128  # where nobody tells

Layers: TypeAlias = Sequence[tuple[int, Tensor]]  # numbers, and the tensor of each
Reader: TypeAlias = Callable[[Layers, Mapping[str, str]], Found | None]


def read_fused(layers: Layers, told: Mapping[str, str]) -> Found | None:
    del told
    return _found([bound(tensor, BOTH, FUSED, layer, R=2) for layer, tensor in layers])


def read_split(layers: Layers, told: Mapping[str, str]) -> Found | None:
    known = heads_told(told)
    if not known:
        return Found((), doubt="heads are not told; say --meta kv_heads=N or head_dim=N")
    found = _found([bound(tensor, BOTH, SPLIT, layer, **known) for layer, tensor in layers])
    if found is None and all(len(tensor.shape) == len(SPLIT.split(",")) for _, tensor in layers):
        sizes = sorted({tensor.shape[-1] for _, tensor in layers})
        doubt = f"{sizes} channels of all heads are not those of kv_heads or head_dim as told"
        return Found((), doubt=doubt)
    return found


def read_packed(layers: Layers, told: Mapping[str, str]) -> Found | None:
    block = count_of(told, "block_size") or BLOCK
    found = []
    for layer, tensor in layers:
        binding = bound(tensor, BOTH, FUSED, layer, R=2)
        if binding is None:
            return None
        splits = _splits(block, binding.length("T"), binding.length("D"))
        if splits is None:
            size = f"{binding.length('T')} tokens of head_dim {binding.length('D')}"
            doubt = f"blocks of {block} tokens do not fit {size}; say --meta block_size=N"
            return Found((), doubt=doubt)
        found.append(replace(binding, axes=PACKED, lengths={**binding.lengths, **splits}))
    return Found(tuple(found))


def _splits(block: int, tokens: int, channels: int) -> dict[str, int] | None:
    """The lengths of T, t, u, D and d; None where rows would not hold whole numbers of them."""
    if tokens % block or block % 2 or 2 * channels % block:
        return None
    half = block // 2  # rows of keys, and rows of values
    return {"T": tokens // block, "t": half, "u": 2, "D": half, "d": channels // half}


def read_latent(layers: Layers, told: Mapping[str, str]) -> Found | None:
    del told
    note = "latents of MLA are taken for keys of one head; there are no values"
    return _found([bound(tensor, Role.KEY, LATENT, layer) for layer, tensor in layers], note)


def heads_told(told: Mapping[str, str]) -> dict[str, int]:
    """The lengths of H and D, as far as somebody tells them."""
    counts = {"H": count_of(told, "kv_heads"), "D": count_of(told, "head_dim")}
    return {letter: count for letter, count in counts.items() if count}


def _found(bindings: Sequence[Binding | None], *notes: str) -> Found | None:
    known = tuple(each for each in bindings if each is not None)
    return Found(known, notes) if len(known) == len(bindings) else None


def arrange_fused(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """The files say which layout they have, which vLLM's own do not."""
    return _files(cache, FUSED, {**metadata, "layout": "vllm"})


def arrange_split(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    channels = {shape.channels for shape in cache.values()}
    if len(channels) > 1:
        raise CannotHoldError(f"needs one head_dim, here are {sorted(channels)}")
    told = {"layout": "vllm_split", "head_dim": str(channels.pop())}
    return _files(cache, SPLIT, {**metadata, **told})


def arrange_packed(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    _check_batch(cache)
    tensors = []
    for layer, shape in both_roles(cache).items():
        splits = _splits(BLOCK, shape.tokens, shape.channels)
        if splits is None:
            size = f"{shape.tokens} tokens of head_dim {shape.channels}"
            raise CannotHoldError(f"has blocks of {BLOCK} tokens, which do not fit {size}")
        file, parts = FILE.format(layer), {letter: splits[letter] for letter in "tud"}
        tensors.append(
            NewTensor(TENSOR, BOTH, FUSED, (layer,), shape, file, order=PACKED, splits=parts)
        )
    told = {"layout": "vllm_cpu", "block_size": str(BLOCK)}
    return Arranged(tuple(tensors), metadata={**metadata, **told})


def arrange_latent(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    for (role, _), shape in cache.items():
        if role is not Role.KEY or shape.heads > 1:
            raise CannotHoldError("holds keys of one head and no values")
    _check_batch(cache)
    tensors = [
        NewTensor(TENSOR, (Role.KEY,), LATENT, (layer,), shape, FILE.format(layer))
        for (_, layer), shape in cache.items()
    ]
    return Arranged(tuple(tensors), metadata={**metadata, "layout": "vllm_mla"})


def _files(cache: Cache, axes: str, metadata: Mapping[str, str]) -> Arranged:
    _check_batch(cache)
    tensors = [
        NewTensor(TENSOR, BOTH, axes, (layer,), shape, FILE.format(layer))
        for layer, shape in both_roles(cache).items()
    ]
    return Arranged(tuple(tensors), metadata=metadata)


def _check_batch(cache: Cache) -> None:
    batches = max(shape.batch for shape in cache.values())
    if batches > 1:
        raise CannotHoldError(f"holds one batch entry, here are {batches}")

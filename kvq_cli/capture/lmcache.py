"""lmcache: files of LMCache's GDS backend, one tensor for all layers of a chunk of tokens.

Spec: formats/capture.md, section "lmcache".

    kvcache   [2, layers, tokens, kv_heads · head_dim], in the header "fmt": 1

Heads are not told. The header fills 4,096 bytes; a side-car `.metadata` repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import Arranged, Cache, CannotHoldError, NewTensor, both_roles
from kvq_cli.capture.binding import bound
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import FORM, METADATA
from kvq_cli.capture.vllm import BOTH, heads_told

TENSOR: Final = "kvcache"
AXES: Final = "R,L,T,HD"
KV_2LTD: Final = 1  # LMCache's number for these axes
MEMBERS: Final = {FORM: KV_2LTD, METADATA: {"lmcache_version": "1"}}
HEADER: Final = 4096


def recognise(files: Files) -> Found | None:
    tensors = [tensor for tensor in files.tensors if tensor.name == TENSOR]
    if not tensors:
        return None
    tensor, *more = tensors
    if more:
        doubt = f"{len(tensors)} chunks of LMCache, whose order their files do not tell"
        return Found((), doubt=f"{doubt}; give one file")
    if tensor.form != KV_2LTD:
        doubt = f"LMCache's fmt is {tensor.form}, and only {KV_2LTD} is known"
        return Found((), doubt=doubt)
    known = heads_told(files.metadata)
    if not known:
        return Found((), doubt="heads are not told; say --meta kv_heads=N or head_dim=N")
    binding = bound(tensor, BOTH, AXES, **known)
    if binding is None:
        doubt = f"{list(tensor.shape)} is not [2, layers, tokens, kv_heads · head_dim] as told"
        return Found((), doubt=doubt)
    return Found((binding,))


def arrange(cache: Cache, metadata: Mapping[str, str]) -> Arranged:
    """One tensor with a header as LMCache writes it; head_dim goes along, which it does not."""
    found = both_roles(cache)
    shapes = set(found.values())
    if len(shapes) > 1:
        raise CannotHoldError(f"holds layers of one shape, here are {len(shapes)}")
    shape = shapes.pop()
    if shape.batch > 1:
        raise CannotHoldError(f"holds one batch entry, here are {shape.batch}")
    tensor = NewTensor(TENSOR, BOTH, AXES, tuple(found), shape)
    told = {**metadata, "head_dim": str(shape.channels)}
    return Arranged((tensor,), metadata=told, members=MEMBERS, header=HEADER)


ADAPTER: Final = Adapter(recognise, arrange, rewritten=True, renumbers=True)

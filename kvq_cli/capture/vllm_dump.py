"""vllm_dump: folders of vLLM's connectors that write to disk, a file a layer.

Spec: formats/capture.md, section "vllm_dump".

    ANYTHING.layers.N.ANYTHING.safetensors   one tensor, kv_cache, and no metadata

A shape alone does not tell the layouts of such files apart. Where nobody tells more, the dump
is in doubt, and carried as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from kvq_cli.capture import vllm
from kvq_cli.capture.adapter import Adapter, Found
from kvq_cli.capture.arranged import Arranger
from kvq_cli.capture.facts import count_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import shown
from kvq_cli.capture.vllm import Layers, Reader
from kvq_cli.errors import CaptureError
from kvq_cli.record import record

LAYER: Final = re.compile(r"(?<![0-9A-Za-z])layers\.(0|[1-9][0-9]{0,5})\.")
READERS: Final[Mapping[str, Reader]] = {
    "vllm": vllm.read_fused,
    "vllm_split": vllm.read_split,
    "vllm_cpu": vllm.read_packed,
    "vllm_mla": vllm.read_latent,
}


@record
class Dump:
    """The tensor of each layer, ascending; a doubt where it is not known which layer it is of."""

    layers: Layers
    doubt: str | None = None


def dump_of(files: Files) -> Dump | None:
    """The layers by the names of their files; CaptureError for several dumps at once."""
    tensors = {files.name_of(each): each for each in files.tensors if each.name == vllm.TENSOR}
    if not tensors:
        return None
    if not files.folder:
        return Dump((), "a file of a vLLM dump has its layer in its name; give the folder of all")
    _check_one(sorted({name.rpartition("/")[0] for name in tensors}))
    layers = {}
    for name, tensor in tensors.items():
        told = LAYER.findall(name.rpartition("/")[2])
        if len(told) != 1:
            return Dump((), f'the file name "{shown(name)}" does not tell one layer')
        if int(told[0]) in layers:
            return Dump((), f"more than one file is of layer {told[0]}")
        layers[int(told[0])] = tensor
    return Dump(tuple(sorted(layers.items(), key=lambda each: each[0])))


def _check_one(folders: list[str]) -> None:
    """A parent of several dumps is refused: each is a capture."""
    if len(folders) > 1:
        first, second = (f'"{shown(folder) or "."}"' for folder in folders[:2])
        raise CaptureError(
            "E204",
            f"{len(folders)} folders in it are captures of their own, such as {first} and "
            f"{second}; give one of them",
        )


def recognise(files: Files) -> Found | None:
    """The layout that the metadata names or that alone fits the shapes, or a doubt."""
    dump = dump_of(files)
    if dump is None:
        return None
    if dump.doubt:
        return Found((), doubt=dump.doubt)
    name = files.metadata.get("layout", "")
    if name not in READERS:
        name = _alone(dump.layers, files.metadata) or ""
    found = READERS[name](dump.layers, files.metadata) if name else None
    return replace(found, layout=name) if found else Found((), doubt=_choices(dump.layers))


def _alone(layers: Layers, told: Mapping[str, str]) -> str | None:
    """The one layout that fits the shapes, and what is told of heads."""
    shapes = {tensor.shape for _, tensor in layers}
    ranks = {len(shape) for shape in shapes}
    if ranks == {2}:
        return "vllm_mla"
    if ranks != {3} or {shape[0] for shape in shapes} != {2} or not vllm.heads_told(told):
        return None
    # Two tokens of the other layout look alike, but for heads and channels.
    heads, channels = count_of(told, "kv_heads"), count_of(told, "head_dim")
    fused = any(heads in (None, shape[1]) and channels in (None, shape[2] / 2) for shape in shapes)
    return None if fused else "vllm_split"


def _choices(layers: Layers) -> str:
    """Why it is in doubt, and what the user can do about it."""
    shapes = {tensor.shape for _, tensor in layers}
    if {len(shape) for shape in shapes} != {3}:
        return f"no layout of vLLM has files of these shapes: {sorted(map(list, shapes))[:4]}"
    told = "the shapes of a vLLM dump do not tell how keys and values lie in it; say"
    if {shape[0] for shape in shapes} == {2}:
        return f"{told} --layout vllm_split with --meta kv_heads=N, or --layout vllm"
    return f"{told} --layout vllm, or vllm_cpu for a dump of the CPU backend"


def _named(name: str, files: Files) -> Found | None:
    """What the named layout makes of a dump."""
    dump = dump_of(files)
    if dump is None:
        return None
    if dump.doubt:
        return Found((), doubt=dump.doubt)
    return READERS[name](dump.layers, files.metadata)


def _adapter(name: str, arrange: Arranger) -> Adapter:
    return Adapter(partial(_named, name), arrange, folder=True, named=True)


ADAPTER: Final = Adapter(recognise)
FUSED: Final = _adapter("vllm", vllm.arrange_fused)
SPLIT: Final = _adapter("vllm_split", vllm.arrange_split)
PACKED: Final = _adapter("vllm_cpu", vllm.arrange_packed)
LATENT: Final = _adapter("vllm_mla", vllm.arrange_latent)

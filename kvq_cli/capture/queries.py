"""queries: the queries that a capture holds, or a file of its own beside it.

Spec: formats/capture.md, section "Queries".

    query        [batch, layers, query_heads, queries, head_dim], or without batch
    positions    I64 [queries]: a query sees the tokens up to its own

They are read like keys: a query head is a head, a query a token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import numpy as np

from kvq_cli.capture.binding import Binding, bound, slabs_of
from kvq_cli.capture.facts import axes_of
from kvq_cli.capture.files import Files
from kvq_cli.capture.header import Tensor
from kvq_cli.capture.layout import QUANTISABLE
from kvq_cli.capture.slab import Slab
from kvq_cli.capture.source import Source
from kvq_cli.errors import CaptureError
from kvq_cli.record import record
from kvq_cli.words import Role

TENSOR: Final = "query"
POSITIONS: Final = "positions"
AXES: Final = "BLHTD"
MAX_QUERIES: Final = 1 << 16
MAX_POSITION: Final = 1 << 40


@record(eq=False)
class Queries:
    """Where the queries of every layer lie, and what they see."""

    source: Source
    tensor: Tensor
    slabs: Mapping[tuple[int, int], Slab]  # by batch entry and place among the layers
    positions: tuple[int, ...] | None  # None: every query sees every token
    scale: float | None  # None: 1 / sqrt(channels)
    rotated: bool  # whether rotary positions are in them

    @property
    def layers(self) -> int:
        return 1 + max(layer for _, layer in self.slabs)


def find_queries(source: Source) -> Queries | None:
    """The queries of a file, if it has any; CaptureError where they make no sense."""
    files = source.files
    tensors = {tensor.name: tensor for tensor in files.tensors}
    tensor = tensors.get(TENSOR)
    if tensor is None:
        return None
    metadata = files.metadata
    binding = _binding(tensor, files)
    found = {(slab.batch, slab.layer): slab for slab in slabs_of(binding)}
    count = binding.length("T")
    causal = POSITIONS in tensors and not metadata.get("causal", "").startswith("false")
    return Queries(
        source=source,
        tensor=tensor,
        slabs=found,
        positions=_positions(source, tensors[POSITIONS], count) if causal else None,
        scale=scale_of(metadata),
        rotated=metadata.get("rope_state", "post") not in ("pre", "pre_rope"),
    )


def scale_of(metadata: Mapping[str, str]) -> float | None:
    """What products are multiplied by; None where nobody tells."""
    text = metadata.get("attention_scale", "")
    try:
        scale = float(text) if text else None
    except ValueError:
        scale = math.nan
    if scale is not None and not 0 < scale < math.inf:
        raise CaptureError("E202", "metadata attention_scale is no positive number", TENSOR)
    return scale


def _binding(tensor: Tensor, files: Files) -> Binding:
    axes = axes_of(files.metadata, AXES, len(tensor.shape))
    binding = bound(tensor, Role.KEY, axes) if axes else None
    if binding is None or tensor.dtype not in QUANTISABLE:
        raise CaptureError(
            "E202",
            f"{tensor.dtype} {list(tensor.shape)} are no queries: F16, BF16 or F32 "
            "[batch, layers, query_heads, queries, head_dim]",
            tensor.name,
        )
    if 0 in tensor.shape or binding.length("T") > MAX_QUERIES:
        found = f"{list(tensor.shape)}: 1 to {MAX_QUERIES} queries of a layer are allowed"
        raise CaptureError("E207", found, tensor.name)
    return binding


def _positions(source: Source, tensor: Tensor, count: int) -> tuple[int, ...]:
    if tensor.dtype != "I64" or tensor.shape != (count,):
        found = f"{tensor.dtype} {list(tensor.shape)}, I64 [{count}] expected"
        raise CaptureError("E202", found, tensor.name)
    data = bytearray(tensor.nbytes)
    source.read_into(tensor.start, data)
    positions = np.frombuffer(data, "<i8")
    if int(positions.min()) < 0 or int(positions.max()) >= MAX_POSITION:
        raise CaptureError("E202", f"a position is not in 0 to {MAX_POSITION - 1}", tensor.name)
    return tuple(positions.tolist())

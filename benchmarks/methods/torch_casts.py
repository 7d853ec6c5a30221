"""torch's own casts to FP8 and int8, with and without a scale for each row."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import torch

from benchmarks.methods import Method

PACKAGES: Final = ("torch",)
KINDS: Final = {
    "e4m3": (torch.float8_e4m3fn, 448.0),
    "e5m2": (torch.float8_e5m2, 57344.0),
    "int8": (torch.int8, 127.0),
}
set_threads = torch.set_num_threads


def rows(kind: str, block: Any) -> tuple[Any, Any]:
    """Arithmetic in float32, scales in half."""
    dtype, largest = KINDS[kind]
    values = torch.from_numpy(block)
    scales = values.abs().amax(-1, keepdim=True).float().div_(largest)
    scales[scales == 0] = 1
    scaled = values.float().div_(scales)
    scaled = scaled.round_() if dtype is torch.int8 else scaled.clamp_(-largest, largest)
    return scaled.to(dtype), scales.half()


def half_rows(kind: str, block: Any) -> tuple[Any, Any]:
    """Arithmetic in half: a rounding more, no float32 in between."""
    dtype, largest = KINDS[kind]
    values = torch.from_numpy(block)
    scales = values.abs().amax(-1, keepdim=True).float().div_(largest)
    scales[scales == 0] = 1
    return (values * (1 / scales).half()).clamp_(-largest, largest).to(dtype), scales.half()


def from_rows(encoded: tuple[Any, Any]) -> Any:
    codes, scales = encoded
    return codes.float().mul_(scales.float()).half().numpy()


def from_half_rows(encoded: tuple[Any, Any]) -> Any:
    codes, scales = encoded
    return codes.half().mul_(scales).numpy()


def cast(block: Any) -> Any:
    return torch.from_numpy(block).to(torch.float8_e4m3fn)


def from_cast(codes: Any) -> Any:
    return codes.half().numpy()


def methods(_heads: int) -> list[Method]:
    return [
        *(Method(f"torch {kind} row", partial(rows, kind), from_rows) for kind in KINDS),
        *(
            Method(f"torch {kind} row, in half", partial(half_rows, kind), from_half_rows)
            for kind in ("e4m3", "int8")
        ),
        Method("torch e4m3 cast", cast, from_cast, note="no scale: clips at 448"),
    ]

"""make_sample_data: the only writer of the synthetic capture in sample_data/.

    python tools/make_sample_data.py            write it
    python tools/make_sample_data.py --check    compare it with what would be written

Three layers as a model with a sliding window leaves them: bfloat16, one tensor a layer and
role, the middle layer with fewer tokens; beside them an integer tensor that is neither key
nor value. Elements follow from a counter by integer arithmetic, so that every machine makes
the same file. The other capture in sample_data/ is a real one, kept as it was written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvq_cli.capture.writer import header_bytes

ROOT: Final = Path(__file__).parents[1]
TARGET: Final = ROOT / "sample_data" / "ragged-3-layers-bf16.safetensors"
TOKENS: Final = (64, 24, 64)  # of each layer
HEADS: Final = 2
CHANNELS: Final = 32
METADATA: Final = {
    "attention_kind": "gqa",
    "model": "synthetic, made by tools/make_sample_data.py",
    "query_heads": "4",
    "rope_state": "post",
}


def scrambled(count: int, seed: int) -> NDArray[np.uint32]:
    """Numbers without pattern from a counter: the finaliser of MurmurHash3."""
    words = np.arange(count, dtype=np.uint32) + np.uint32(seed * 0x9E3779B1 & 0xFFFFFFFF)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        words ^= words >> np.uint32(shift)
        words *= np.uint32(factor)
    return words


def elements(tokens: int, layer: int, role: str) -> bytes:
    """bfloat16 bits (1, H, T, D): sums of four bytes, with a strong channel in keys."""
    shape = (1, HEADS, tokens, CHANNELS)
    bytes_of = scrambled(HEADS * tokens * CHANNELS, 2 * layer + (role == "value"))
    summed = bytes_of.view(np.uint8).reshape(*shape, 4).sum(axis=-1, dtype=np.int32) - 510
    if role == "key":
        summed[..., 5] += 4000  # as models with a bias in their keys have it
    # Integers below 2**13 over 2**8 are exact in float32; the upper half is bfloat16.
    values = summed.astype("<f4") * np.float32(2.0**-8)
    words: NDArray[np.uint16] = (values.view("<u4") >> 16).astype("<u2")
    return words.tobytes()


def sample() -> bytes:
    """The file."""
    tensors: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for layer, tokens in enumerate(TOKENS):
        for role in ("key", "value"):
            shape = (1, HEADS, tokens, CHANNELS)
            tensors[f"layers.{layer}.{role}"] = ("BF16", shape, elements(tokens, layer, role))
    positions = np.arange(max(TOKENS), dtype="<i8").tobytes()
    tensors["positions"] = ("I64", (max(TOKENS),), positions)
    header = header_bytes([(name, *entry[:2]) for name, entry in tensors.items()], METADATA)
    # The header lists wide dtypes first, then names.
    order = ["positions", *sorted(name for name in tensors if name != "positions")]
    return header + b"".join(tensors[name][2] for name in order)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    if not parser.parse_args().check:
        TARGET.write_bytes(sample())
    elif not TARGET.is_file() or TARGET.read_bytes() != sample():
        print(f"{TARGET.relative_to(ROOT)} is not what its recipe makes", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

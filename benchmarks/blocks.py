"""blocks: what is measured on. Keys and values of a capture as blocks (N, T, D) of halves.

A block is one head of one layer over T tokens, T the largest multiple of 64 up to 256 that the
capture has; tokens left over are dropped. Sizes and errors are of the blocks as they are. For
times they are repeated to more than any cache holds, each repeat with its channels in another
order, so that no compressor finds in it what it saw before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

ROOT: Final = Path(__file__).parents[1]
MAKE_CAPTURE: Final = ROOT / "tools" / "make_capture.py"
SAMPLE: Final = ROOT / "sample_data" / "smollm2-sample-4x3x96x64-f16.safetensors"
ROLES: Final = ("key", "value")
TOKENS: Final = 256
FRESH: Final = 1 << 26  # bytes of a role; the largest cache of this kind of machine has half

Blocks = NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Capture:
    """Blocks of both roles, and where they are from."""

    name: str
    digest: str
    heads: int
    dtype: str
    roles: Mapping[str, Blocks]

    @property
    def channels(self) -> int:
        return int(self.roles["key"].shape[2])


def read(path: Path, name: str = "") -> Capture:
    """A canonical capture: `key` and `value`, [batch,] layers, kv heads, tokens, head_dim."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    if not set(ROLES) <= set(header):
        raise SystemExit(f"benchmarks: {path.name} holds no tensors called key and value")
    roles = {}
    for role in ROLES:
        first, last = header[role]["data_offsets"]
        halves = _halves(data[start + first : start + last], header[role]["dtype"])
        roles[role] = _cut(halves.reshape(-1, *header[role]["shape"][-2:]))
    heads = int(header["key"]["shape"][-3])
    digest = f"blake3:{blake3(data).hexdigest()}"
    return Capture(name or path.name, digest, heads, header["key"]["dtype"], roles)


def _halves(data: bytes, dtype: str) -> Blocks:
    """The elements, rounded to F16 where they are none: peers take no other."""
    if dtype == "F16":
        return np.frombuffer(data, np.float16)
    if dtype == "BF16":
        wide = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
        return wide.astype(np.float16)
    return np.frombuffer(data, np.float32).astype(np.float16)


def _cut(rows: Blocks) -> Blocks:
    """(heads of all layers, tokens, D) in blocks of T tokens."""
    _, tokens, channels = rows.shape
    length = min(TOKENS, max(64, tokens // 64 * 64), tokens)
    whole = tokens // length * length
    return np.ascontiguousarray(rows[:, :whole].reshape(-1, length, channels))


def repeated(blocks: Blocks, nbytes: int = FRESH) -> Blocks:
    """At least so many bytes; the first repeat is the blocks themselves."""
    count = -(-nbytes // blocks.nbytes)
    channels = blocks.shape[2]
    order = np.random.default_rng(0)
    orders = [np.arange(channels), *(order.permutation(channels) for _ in range(count - 1))]
    return np.concatenate([blocks[:, :, each] for each in orders])


@contextmanager
def grown(channels: int, heads: int = 8, nbytes: int = 2 * FRESH) -> Iterator[Path]:
    """A capture that tools/make_capture.py grows from the sample; 8 layers."""
    with tempfile.TemporaryDirectory(prefix="kvq-bench-") as folder:
        path = Path(folder) / "grown.safetensors"
        words = [f"--channels={channels}", f"--heads={heads}", "--layers=8", f"--bytes={nbytes}"]
        subprocess.run([sys.executable, str(MAKE_CAPTURE), str(path), *words], check=True)
        yield path

"""real: captures of real models, from the folder that KVQ_CAPTURES names.

Its `canonical` and `hf` hold safetensors captures; a file NAME.query.safetensors beside one
holds queries. Everything is read without kvq.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from kvq_cli import pipeline

WORDS = {"F16": "<u2", "BF16": "<u2", "F32": "<u4", "I64": "<i8", "I32": "<i4"}
QUERIES = ".query.safetensors"


def captures(*layouts):
    """Paths of all captures, or of those in layouts of tools; a line that says why none."""
    folder = os.environ.get("KVQ_CAPTURES")
    if not folder:
        return _none("KVQ_CAPTURES is not set")
    paths = sorted(
        path
        for layout in layouts or ("canonical", "hf")
        for path in (Path(folder) / layout).glob("*.safetensors")
        if not path.name.endswith(QUERIES)
    )
    if layouts and not paths:
        return _none(f"KVQ_CAPTURES has none of {', '.join(layouts)}")
    assert paths, f"KVQ_CAPTURES={folder} holds no captures"
    return [pytest.param(path, id=path.stem) for path in paths]


def _none(reason):
    return [pytest.param(None, marks=pytest.mark.skip(reason=reason))]


def header_of(path):
    """Where the data begins, and the header."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return 8 + size, json.loads(file.read(size))


def tensors(path):
    """Name, dtype and bits of each tensor."""
    start, header = header_of(path)
    data = path.read_bytes()
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            bits = np.frombuffer(data[start + first : start + last], WORDS[entry["dtype"]])
            yield name, entry["dtype"], bits.reshape(entry["shape"])


def floats(dtype, bits):
    """float64 values; captures hold finite numbers only."""
    if dtype == "F16":
        return bits.view("<f2").astype(np.float64)
    words = bits if dtype == "F32" else bits.astype("<u4") << 16
    return words.view("<f4").astype(np.float64)


def by_layer(box, path, selection=None):
    """A container's tensors as layers.N.key and layers.N.value of (B, H, T, D)."""
    pipeline.decompress(box, path, layout="hf", selection=selection, force=True)
    return {name: (dtype, bits) for name, dtype, bits in tensors(path)}


def print_table(request, columns, rows):
    """A table on the terminal, whatever pytest captures."""
    cells = [columns, *rows]
    width = max(len(line[0]) for line in cells)
    text = "\n".join(
        line[0].ljust(width) + "".join(f"{cell:>11}" for cell in line[1:]) for line in cells
    )
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        request.config.get_terminal_writer().write(f"\n\n{text}\n")

"""What kvq promises of real caches, on every capture of a folder.

KVQ_CAPTURES names a folder whose `canonical` and `hf` hold safetensors captures; files called
*.query.safetensors hold queries and are left out. The figures are printed as a table:

    lossless, zstd-19, bound   source file over container, over zstd -19 of the file, and over
                               Σ tokens·H0(exponent | layer, role, head, channel) + sign + mantissa
    mse K, mse V               int8: Σ(x-y)² / Σx² over the file
    packed, stored             int8: parts of the tensors' bytes in their own dtype
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import zstandard

from kvq_cli import pipeline
from kvq_cli.steps.select import Selection

pytestmark = pytest.mark.long
MANTISSA = {"F16": 10, "BF16": 7, "F32": 23}
WORDS = {"F16": "<u2", "BF16": "<u2", "F32": "<u4"}
HALF_A_PAGE = 128
COLUMNS = ("file", "lossless", "zstd-19", "bound", "mse K", "mse V", "packed", "stored")


def captures():
    """Paths of all captures; a line that says why there are none."""
    folder = os.environ.get("KVQ_CAPTURES")
    if not folder:
        return [pytest.param(None, marks=pytest.mark.skip(reason="KVQ_CAPTURES is not set"))]
    paths = sorted(
        path
        for layout in ("canonical", "hf")
        for path in (Path(folder) / layout).glob("*.safetensors")
        if not path.name.endswith(".query.safetensors")
    )
    assert paths, f"KVQ_CAPTURES={folder} holds no captures"
    return [pytest.param(path, id=path.stem) for path in paths]


every_capture = pytest.mark.parametrize("path", captures())


@pytest.fixture(scope="module")
def table(request):
    """Rows that are printed when the last capture is done."""
    rows = {}
    yield rows
    cells = [COLUMNS, *((name, *row.values()) for name, row in rows.items())]
    width = max(len(line[0]) for line in cells)
    text = "\n".join(
        line[0].ljust(width) + "".join(f"{cell:>10}" for cell in line[1:]) for line in cells
    )
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        request.config.get_terminal_writer().write(f"\n\n{text}\n")


def row_of(table, path):
    """A capture's row, empty at first."""
    return table.setdefault(path.stem, dict.fromkeys(COLUMNS[1:], "-"))


def tensors(path):
    """Name to dtype and bits, read without kvq."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    for name, entry in json.loads(data[8:start]).items():
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


def bound(dtype, bits):
    """Bytes of a (…, T, D) tensor by the order-0 entropy of exponents given head and channel."""
    mantissa = MANTISSA[dtype]
    exponents = (bits >> mantissa & (0x1F if dtype == "F16" else 0xFF)).astype(np.int64)
    tokens, channels = bits.shape[-2:]
    columns = np.arange(bits.size // tokens).reshape(-1, 1, channels)
    symbols = columns * 256 + exponents.reshape(-1, tokens, channels)
    counts = np.unique(symbols, return_counts=True)[1].astype(np.float64)
    entropy = bits.size * np.log2(tokens) - float((counts * np.log2(counts)).sum())
    return (entropy + bits.size * (1 + mantissa)) / 8


def by_layer(box, path, selection=None):
    """A container's tensors as layers.N.key and layers.N.value of (B, H, T, D)."""
    pipeline.decompress(box, path, layout="per_layer", selection=selection, force=True)
    return {name: (dtype, bits) for name, dtype, bits in tensors(path)}


@every_capture
def test_lossless_gives_back_every_byte_near_the_bound(path, tmp_path, table):
    """The file comes back, smaller than zstd -19 makes it and within 3 % of the entropy bound."""
    box, back = tmp_path / "box.kvq", tmp_path / "back"
    size = pipeline.compress(path, box, profiles=["lossless"]).file_bytes
    pipeline.decompress(box, back)
    original = path.read_bytes()
    assert back.read_bytes() == original
    best = len(zstandard.ZstdCompressor(level=19).compress(original))
    least = sum(bound(dtype, bits) for _, dtype, bits in tensors(path))
    rivals = {"lossless": size, "zstd-19": best, "bound": least}
    for name, count in rivals.items():
        row_of(table, path)[name] = f"{len(original) / count:.4f}"
    assert size < best
    assert pipeline.stats(box).parts["pages"] <= 1.03 * least
    # Framing is a part of the file that short pages notice.
    if min(bits.shape[-2] for _, _, bits in tensors(path)) >= HALF_A_PAGE:
        assert size <= 1.03 * least


@every_capture
def test_int8_is_close_and_small(path, tmp_path, table):
    """int8 loses 2e-4 of the energy at most, and takes 8 bits and 32 a row before zstd."""
    lossless, box = tmp_path / "lossless.kvq", tmp_path / "int8.kvq"
    pipeline.compress(path, lossless, profiles=["lossless"])
    pipeline.compress(path, box, profiles=["int8"])
    before = by_layer(lossless, tmp_path / "before")
    after = by_layer(box, tmp_path / "after")
    assert before.keys() == after.keys()
    row = row_of(table, path)
    errors = {}
    for role in ("key", "value"):
        names = [name for name in before if name.endswith(role)]
        pairs = [(floats(*before[name]), floats(*after[name])) for name in names]
        lost = sum(float(((x - y) ** 2).sum()) for x, y in pairs)
        errors[role] = lost / sum(float((x**2).sum()) for x, _ in pairs)
        row[f"mse {role[0].upper()}"] = f"{errors[role]:.2e}"
    roles = pipeline.stats(box).roles
    source, packed, stored = (
        sum(role[name] for role in roles)
        for name in ("source_bytes", "packed_bytes", "stored_bytes")
    )
    row |= {"packed": f"{packed / source:.4f}", "stored": f"{stored / source:.4f}"}
    allowed = sum((8 + 32 / bits.shape[-1]) / 8 * bits.size for _, bits in before.values())
    assert packed <= 1.01 * allowed
    assert stored < packed
    assert max(errors.values()) <= 2e-4


@every_capture
@pytest.mark.parametrize("profile", ["lossless", "int8"])
def test_slices_are_what_the_whole_holds(path, profile, tmp_path):
    """The container verifies, against its capture too, and a slice equals the same rows of all."""
    box = tmp_path / "box.kvq"
    pipeline.compress(path, box, profiles=[profile])
    assert not pipeline.verify(box, against=path).broken
    whole = by_layer(box, tmp_path / "whole")
    heads = whole["layers.0.key"][1].shape[1]
    chosen = Selection(
        chosen_layers=(1, -1), chosen_heads=(heads - 1,), chosen_tokens=(5, slice(-20, None))
    )
    cut = by_layer(box, tmp_path / "cut", chosen)
    assert len(cut) == 4
    for name, (dtype, bits) in cut.items():
        tokens = whole[name][1].shape[2]
        rows = [5, *range(tokens - 20, tokens)]
        assert dtype == whole[name][0]
        assert np.array_equal(bits, whole[name][1][:, heads - 1 :, rows])

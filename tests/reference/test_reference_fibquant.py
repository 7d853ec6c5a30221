"""The compat page can be followed by hand: its vectors, one number at a time."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from reference.fibquant import codebook, decode, encode, rotation_digest
from reference.fibquant_draws import Stream
from reference.fibquant_tables import first_codebook, rotation, trained

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "contract"
VECTORS = json.loads((FOLDER / "fibquant_codec.json").read_text())
ROTATIONS = [row for row in VECTORS["rotations"] if row["dim"] <= 16]
CODED = [
    # 960 blocks, 25 iterations and 4 restarts take 3 s by hand.
    pytest.param(
        row,
        id=row["name"],
        marks=[pytest.mark.long] if row["name"] == "test-profile" else [],
    )
    for row in VECTORS["kv_tensors"]
    if row["decoded_digest"] != row["source_digest"]
]


@pytest.mark.parametrize("row", VECTORS["generator"], ids=lambda row: str(row["seed"]))
def test_generator(row):
    """Draws are the vectors'."""
    stream = Stream(row["seed"])
    assert [f"{stream.draw():016x}" for _ in row["draws"]] == row["draws"]


@pytest.mark.parametrize("row", ROTATIONS, ids=lambda row: f"{row['dim']} {row['seed']}")
def test_rotations(row):
    """Digests of rotations are the reference's."""
    made = rotation(row["dim"], row["seed"])
    assert rotation_digest(row["dim"], row["seed"], made) == row["digest"]


@pytest.mark.parametrize("args", [(12, 3, 12, 41), (16, 4, 16, 13), (32, 8, 32, 14)], ids=str)
def test_first_and_last_codewords(args):
    """Codebooks for k of 3, 4 and 8 begin and end as the reference's do."""
    (row,) = (row for row in VECTORS["codebooks"] if tuple(row["args"]) == args)
    d, k, size, seed = args
    samples, restarts, iterations = row["training"]
    first = first_codebook(d, k, size)
    bits = [struct.pack(">d", x).hex() for word in first for x in word][:4]
    assert bits == row["init_first_bits"]
    profile = {
        "ambient_dim": d,
        "block_dim": k,
        "codebook_size": size,
        "codebook_seed": (seed + 0x9E3779B97F4A7C15) % 2**64,
        "training_samples": samples,
        "lloyd_restarts": restarts,
        "lloyd_iterations": iterations,
    }
    words, report = trained(profile)
    packed = b"".join(struct.pack("<f", x) for word in words for x in word).hex()
    assert packed.startswith(row.get("f32", row.get("first_f32")))
    found = [struct.pack(">d", report[name]).hex() for name in ("init_mse", "best_mse")]
    assert found == [row["init_mse"], row["training_mse"]]


@pytest.mark.parametrize("row", CODED)
def test_codes(row):
    """Codebook digest, first code and first decoded vector of a tensor are the reference's."""
    whole = json.loads(row["profile"])
    profile, d = whole["fib_profile"], whole["fib_profile"]["ambient_dim"]
    seed, width = profile["rotation_seed"], profile["wire_index_bits"]
    turn = rotation(d, seed)
    digest = rotation_digest(d, seed, turn)
    assert digest == whole["rotation_digest"]
    words, digest = codebook(profile, digest)
    assert digest == whole["codebook_digest"]
    vector = list(struct.unpack_from(f"<{d}f", bytes.fromhex(row["values_f32"])))
    norm, indices = encode(turn, words, width, vector)
    code = json.loads(row["first_code_json"])
    assert (list(norm), list(indices)) == (code["norm_payload"], code["indices"])
    assert row["decoded_f32"].startswith(decode(turn, words, width, norm, indices).hex())

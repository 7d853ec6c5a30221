"""The vectors of the compat half: every table, rotation, codebook and page of the reference."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from kvq_cli import jsontext
from kvq_cli.contract.compat import chacha8, ziggurat
from kvq_cli.contract.compat.codebook import codebook
from kvq_cli.contract.compat.draws import Draws
from kvq_cli.contract.compat.fib_code import FibCodeV1
from kvq_cli.contract.compat.initial import initial_codewords
from kvq_cli.contract.compat.kv_decode import decode_tensor
from kvq_cli.contract.compat.kv_encode import encode_tensor
from kvq_cli.contract.compat.kv_tensor import TENSOR_TAG, VECTOR_TAG, float32_digest
from kvq_cli.contract.compat.rotation import rotation
from kvq_cli.contract.compat.vector_code import Quantizer
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.contract.words import LloydMode
from kvq_cli.errors import CodecError

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "contract"
VECTORS = jsontext.loads((FOLDER / "fibquant_codec.json").read_bytes(), limit=1 << 20)


TENSORS = {row["name"]: row for row in VECTORS["kv_tensors"]}


def load(text: str) -> Any:
    return jsontext.loads(text.encode(), limit=1 << 20)


def singles(text: str) -> Any:
    return np.frombuffer(bytes.fromhex(text), "<f4").astype(np.float32)


def quantizer_of(name: str) -> Quantizer:
    profile = KvCompressionProfileV1.from_json(load(TENSORS[name]["profile"]))
    return Quantizer.build(profile.fib_profile)


def bits(values: Any) -> list[str]:
    return [struct.pack(">d", value).hex() for value in values]


@pytest.mark.parametrize("row", VECTORS["generator"], ids=lambda row: str(row["seed"]))
def test_generator(row: dict[str, Any]) -> None:
    """A seed has its key and its draws."""
    key = chacha8.key_words(row["seed"])
    assert [f"{word:08x}" for word in key] == row["key"]
    assert [f"{draw:016x}" for draw in chacha8.draws(key, 0, 2).tolist()] == row["draws"]


@pytest.mark.parametrize("row", VECTORS["tables"], ids=lambda row: row["name"])
def test_tables(row: dict[str, str]) -> None:
    """Edges and heights are the reference's, to the last bit of all 514."""
    table = getattr(ziggurat, row["name"])()
    packed = struct.pack("<514d", *table.edges, *table.heights)
    assert f"blake3:{blake3(packed).hexdigest()}" == row["sum"]


@pytest.mark.parametrize("row", VECTORS["draws"], ids=lambda row: f"{row['kind']} {row['seed']}")
def test_draws(row: dict[str, Any]) -> None:
    """A seed has its numbers of each distribution."""
    draws = Draws(row["seed"])
    draw = getattr(draws, row["kind"])
    shape = [row["shape"]] if "shape" in row else []
    assert bits(draw(*shape) for _ in row["bits"]) == row["bits"]


@pytest.mark.parametrize("row", VECTORS["rotations"], ids=lambda row: f"{row['dim']} {row['seed']}")
def test_rotations(row: dict[str, Any]) -> None:
    """A rotation has the reference's digest."""
    made = rotation(row["dim"], row["seed"])
    assert bits(made.matrix.reshape(-1)[:4]) == row["first_bits"]
    assert made.digest() == row["digest"]


@pytest.mark.parametrize("row", VECTORS["codebooks"], ids=lambda row: str(row["args"]))
def test_codebooks(row: dict[str, Any]) -> None:
    """A codebook has the reference's first and last codewords, errors, repairs and digest."""
    samples, restarts, iterations = row["training"]
    profile = dataclasses.replace(
        FibQuantProfileV1.paper_default(*row["args"]),
        training_samples=samples,
        lloyd_restarts=restarts,
        lloyd_iterations=iterations,
    )
    assert profile.digest() == row["profile_digest"]
    assert bits(initial_codewords(profile).reshape(-1)[:4]) == row["init_first_bits"]
    made = codebook(profile)
    assert bits([made.init_mse, made.training_mse]) == [row["init_mse"], row["training_mse"]]
    assert made.report.best_restart == row["best_restart"]
    assert made.report.empty_cells_repaired == row["repairs"]
    packed = made.codewords.astype("<f4").tobytes().hex()
    assert packed == row["f32"] if "f32" in row else packed.startswith(row["first_f32"])
    assert made.digest() == row["digest"]


@pytest.mark.parametrize("row", VECTORS["lloyd_mode"], ids=lambda row: str(row["args"]))
def test_lloyd_mode(row: dict[str, Any]) -> None:
    """The 20-field set has its own codebook digest over the same codewords."""
    profile = FibQuantProfileV1.paper_default(*row["args"], LloydMode.REFINE)
    assert profile.digest() == row["profile_digest"]
    made = codebook(profile)
    assert (made.rotation_digest, made.digest()) == (row["rotation_digest"], row["digest"])
    shorter = dataclasses.replace(made, profile=dataclasses.replace(profile, lloyd_mode=None))
    assert shorter.digest() == row["digest_without"]


@pytest.mark.parametrize("row", VECTORS["kv_tensors"], ids=lambda row: row["name"])
def test_kv_tensors(row: dict[str, Any]) -> None:
    """A tensor has the reference's pages, and they the reference's values."""
    shape = KvTensorShapeV1.from_json(load(row["shape"]))
    profile = KvCompressionProfileV1.from_json(load(row["profile"]))
    assert profile.digest() == row["profile_digest"]
    values = singles(row["values_f32"])
    assert float32_digest(TENSOR_TAG, values) == row["source_digest"]
    first = values[: shape.head_dim]
    assert float32_digest(VECTOR_TAG, first) == row["first_vector_source_digest"]
    pages = encode_tensor(shape, profile, values)
    assert [page.page_digest for page in pages] == row["page_digests"]
    assert all(page.digest() == page.page_digest for page in pages)
    assert row.get("page0_json") in (None, pages[0].compact())
    decoded = decode_tensor(shape, profile, pages)
    assert decoded.astype("<f4").tobytes().hex() == row["decoded_f32"]
    assert float32_digest(TENSOR_TAG, decoded) == row["decoded_digest"]


@pytest.mark.parametrize(
    "row",
    [row for row in VECTORS["kv_tensors"] if "first_code_json" in row],
    ids=lambda row: row["name"],
)
def test_vector_codes(row: dict[str, Any]) -> None:
    """A vector has the reference's code, and the code, read from text, the reference's vector."""
    profile = KvCompressionProfileV1.from_json(load(row["profile"])).fib_profile
    quantizer = Quantizer.build(profile)
    vector = singles(row["values_f32"])[: profile.ambient_dim]
    code = quantizer.code(vector)
    assert (code.compact(), code.digest()) == (row["first_code_json"], row["first_code_digest"])
    read = FibCodeV1.from_json(load(row["first_code_json"]))
    assert read == code
    if row["decoded_digest"] != row["source_digest"]:  # the pages hold codes, not raw vectors
        restored = quantizer.restore(read).astype("<f4").tobytes().hex()
        assert row["decoded_f32"].startswith(restored)


@pytest.mark.parametrize("row", VECTORS["refused_vectors"], ids=lambda row: row["name"])
def test_refused_vectors(row: dict[str, Any]) -> None:
    """A vector without a code is refused in the reference's words."""
    with pytest.raises(CodecError) as refusal:
        quantizer_of(row["tensor"]).code(singles(row["f32"]))
    assert (refusal.value.error_id, str(refusal.value)) == ("E501", row["reason"])


@pytest.mark.parametrize("row", VECTORS["invalid_codes"], ids=lambda row: row["name"])
def test_invalid_codes(row: dict[str, Any]) -> None:
    """A code that no encoder writes, or that is of other tables, is refused."""
    quantizer = quantizer_of(row["tensor"])
    value = load(TENSORS[row["tensor"]]["first_code_json"])
    quantizer.restore(FibCodeV1.from_json(value))
    with pytest.raises(CodecError) as refusal:
        quantizer.restore(FibCodeV1.from_json(value | row["change"]))
    assert refusal.value.error_id == "E502"

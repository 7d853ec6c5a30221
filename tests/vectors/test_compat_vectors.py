"""The vectors of the compat half: every table, rotation, codebook and page of the reference."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from kvq_cli import jsontext
from kvq_cli.contract.compat import chacha8, ziggurat
from kvq_cli.contract.compat.draws import Draws
from kvq_cli.contract.compat.rotation import rotation

FOLDER = Path(__file__).parents[2] / "formats" / "vectors" / "contract"
VECTORS = jsontext.loads((FOLDER / "fibquant_codec.json").read_bytes(), limit=1 << 20)


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

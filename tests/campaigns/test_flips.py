"""Every single flipped bit of three containers is refused, and so is every truncation of two.

The long runs come in pieces, `-k "lossless and shard3"` is one of them.
"""

from __future__ import annotations

import os

import pytest

from kvq_cli import pipeline
from kvq_cli.errors import DAMAGED, UNSUPPORTED, KvqError
from support.golden import RECIPES, golden, piped

SHARDS = 8
FLIPS = "single flipped bits, all refused"
PIPED = "single flipped bits read from a pipe, all refused"
CUTS = "truncations read from a file and from a pipe, all refused"
EVERY = 97  # flips between two that are read from a pipe and decompressed too
CUT = ("lossless", "tables")

each_file = pytest.mark.parametrize("name", RECIPES)
each_shard = pytest.mark.parametrize("shard", range(SHARDS), ids=lambda shard: f"shard{shard}")


@pytest.fixture(scope="module")
def containers(tmp_path_factory):
    """The bytes of each container, all of which are valid."""
    found = {name: golden(name, tmp_path_factory.mktemp(name)) for name in RECIPES}
    for path in found.values():
        pipeline.verify(path)
    return {name: path.read_bytes() for name, path in found.items()}


def refusal(story, *arguments, **options):
    """The error that kvq declares, if any; whatever else is raised fails the test."""
    try:
        story(*arguments, **options, threads=1)
    except KvqError as error:
        return error
    return None


def refused_from_a_pipe(data) -> bool:
    with piped(data) as path:
        return refusal(pipeline.verify, path) is not None


def flip(data, folder, positions, record) -> None:
    """Flip each bit in turn, in the file itself; every EVERYth in a pipe too."""
    path, back = folder / "flipped.kvq", folder / "back"
    path.write_bytes(data)
    counts = {FLIPS: 0, PIPED: 0}
    with path.open("r+b", buffering=0) as file:
        for number, position in enumerate(positions):
            at, bit = divmod(position, 8)
            flipped = bytes([data[at] ^ 1 << bit])
            os.pwrite(file.fileno(), flipped, at)
            error = refusal(pipeline.verify, path)
            assert error, f"bit {bit} of byte {at} was not found"
            assert error.exit_code in (DAMAGED, UNSUPPORTED), (at, bit, str(error))
            counts[FLIPS] += 1
            if number % EVERY == 0:
                assert refused_from_a_pipe(data[:at] + flipped + data[at + 1 :]), (at, bit)
                assert refusal(pipeline.decompress, path, back), (at, bit)
                assert not back.exists()
                counts[PIPED] += 1
            os.pwrite(file.fileno(), data[at : at + 1], at)
    assert path.read_bytes() == data
    for figure in counts.items():
        record("figure", figure)


@each_file
def test_flipped_bits(name, containers, tmp_path, record_property):
    """Some 200 flipped bits, spread over the file, are found one and all."""
    bits = 8 * len(containers[name])
    flip(containers[name], tmp_path, range(0, bits, bits // 200 | 1), record_property)


@pytest.mark.long
@each_shard
@each_file
def test_every_flipped_bit(name, shard, containers, tmp_path, record_property):
    """Every flipped bit is found; a shard takes every eighth."""
    bits = 8 * len(containers[name])
    flip(containers[name], tmp_path, range(shard, bits, SHARDS), record_property)


def test_the_files_are_large_enough(containers):
    """Each has 16 KiB or more, and together they have 390,000 bits."""
    assert sum(map(len, containers.values())) * 8 >= 390_000


def truncate(data, folder, sizes, record) -> None:
    """Cut the file at each size; a cut file is damaged, not unsupported."""
    path = folder / "cut.kvq"
    for size in sizes:
        path.write_bytes(data[:size])
        with piped(data[:size]) as pipe:
            for source in (path, pipe):
                error = refusal(pipeline.verify, source)
                assert error, f"cut at {size} of {len(data)} was not found"
                assert error.exit_code == DAMAGED, (size, str(error))
    record("figure", (CUTS, 2 * len(sizes)))


@pytest.mark.parametrize("name", CUT)
def test_truncations(name, containers, tmp_path, record_property):
    """Every 401st truncation is found, and some of those in the footer and before it."""
    size = len(containers[name])
    sizes = sorted({*range(0, size, 401), *range(size - 130, size, 9), size - 1})
    truncate(containers[name], tmp_path, sizes, record_property)


@pytest.mark.long
@each_shard
@pytest.mark.parametrize("name", CUT)
def test_every_truncation(name, shard, containers, tmp_path, record_property):
    """Every truncation is found."""
    sizes = range(shard, len(containers[name]), SHARDS)
    truncate(containers[name], tmp_path, sizes, record_property)

"""Recovering from any cut and any flipped bit: all that was whole is there, and nothing else."""

from __future__ import annotations

import os

import pytest

from kvq_cli import pipeline
from kvq_cli.container.reader import Reader
from kvq_cli.container.source import ByteSource
from kvq_cli.errors import ContainerError
from kvq_cli.profile import parse_profile
from kvq_cli.steps.recover import survey, write_intact
from kvq_cli.steps.work import silent
from support.captures import canonical_capture

FOOTER, HEADER = 128, 64


LAYERS = parse_profile(
    {"schema": "kvq_profile_v1", "name": "layers", "rules": [{"codec": "int8"}], "page_layers": 2}
)


@pytest.fixture(scope="module", params=["int8", "lossless", LAYERS])
def golden(request, tmp_path_factory):
    """A container, and where its chunks lie: type, offset, end of the payload."""
    folder = tmp_path_factory.mktemp("recovery")
    (folder / "cache").write_bytes(canonical_capture(layers=3, heads=2, tokens=20, channels=16))
    target = folder / "cache.kvq"
    pipeline.compress(folder / "cache", target, profiles=[request.param], threads=1)
    data = target.read_bytes()
    at, chunks = -(-(64 + int.from_bytes(data[20:24], "little")) // 64) * 64, []
    while at < len(data) - FOOTER:
        end = at + HEADER + int.from_bytes(data[at + 8 : at + 16], "little")
        chunks.append((data[at : at + 4].decode(), at, end))
        at = -(-end // 64) * 64
    return request.param, data, chunks


def recovered(folder, data):
    """What is found of a damaged file, and the bytes that are written."""
    path = folder / "damaged"
    path.write_bytes(data)
    with ByteSource.open(path) as source:
        reader = Reader(source, damaged=True)
        found = survey(reader, None, silent)
        out = bytearray()
        write_intact(reader, found, lambda *buffers: out.extend(b"".join(buffers)), None, silent)
    return found, bytes(out)


def check(folder, golden, data, whole):
    """`whole` are the chunks that are not damaged."""
    profile, original, chunks = golden
    pages = sum(kind == "PAGE" for kind, *_ in whole)
    lost = [each for each in chunks if each not in whole]
    if not pages:
        with pytest.raises(ContainerError):
            recovered(folder, data)
        return
    found, out = recovered(folder, data)
    unknown = profile != "lossless" and lost and ("INDX", *chunks[-2][1:]) in lost
    assert found.unknown == (pages if unknown else 0)
    matter = [kind for kind, *_ in lost if kind != "INDX"]
    assert (found.manifest.partial is None) == (not matter and not unknown)
    if not matter and not unknown:
        assert out == original
        return
    (folder / "out").write_bytes(out)
    report = pipeline.verify(folder / "out", partial=True, threads=1)
    assert report.pages == pages
    assert not report.broken


def truncated(folder, golden, sizes):
    _, data, chunks = golden
    for size in sizes:
        check(folder, golden, data[:size], [each for each in chunks if each[2] <= size])


def flipped(folder, golden, positions):
    _, data, chunks = golden
    for position in positions:
        byte, bit = divmod(position, 8)
        damaged = bytearray(data)
        damaged[byte] ^= 1 << bit
        if byte < 64 + int.from_bytes(data[20:24], "little"):
            with pytest.raises(ContainerError):
                recovered(folder, damaged)
            continue
        whole = [each for each in chunks if not each[1] <= byte < each[2]]
        check(folder, golden, damaged, whole)


def test_cuts(golden, tmp_path):
    """Pages that were written before the cut are there: every 61st cut, and those at the end."""
    size = len(golden[1])
    truncated(tmp_path, golden, [*range(0, size, 61), *range(size - 140, size, 7)])


def test_flips(golden, tmp_path):
    """One bit costs the chunk that it lies in: some 200 flips."""
    bits = 8 * len(golden[1])
    flipped(tmp_path, golden, range(5, bits, bits // 200))


@pytest.mark.long
def test_every_cut(golden, tmp_path):
    """Every cut there is."""
    truncated(tmp_path, golden, range(len(golden[1])))


@pytest.mark.long
def test_every_flip(golden, tmp_path):
    """Every flip there is."""
    flipped(tmp_path, golden, range(8 * len(golden[1])))


def test_no_descriptor_stays_open(golden, tmp_path):
    """However it ends."""
    before = len(os.listdir("/proc/self/fd"))
    for size in (70, 3000, len(golden[1])):
        try:
            recovered(tmp_path, golden[1][:size])
        except ContainerError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before

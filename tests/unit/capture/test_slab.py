"""slab: rows read and written are those of NumPy's slicing, for every order of axes."""

from __future__ import annotations

import os
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvq_cli.capture import slab as module
from kvq_cli.capture import tiles
from kvq_cli.capture.binding import bound, slabs_of
from kvq_cli.capture.sink import Sink
from kvq_cli.capture.slab import Slab, read_rows, write_rows
from kvq_cli.capture.source import Source
from kvq_cli.errors import FileError
from kvq_cli.words import DType, Role
from support.captures import kv_bits, safetensors_bytes

ORDERS = sorted(
    {"".join(axes) for letters in ("HTD", "BHTD", "LHTD", "HTtD") for axes in permutations(letters)}
    | {"".join(axes) + "D" for axes in permutations("BLHT")}
)
LENGTHS = {"B": 2, "L": 2, "H": 5, "T": 7, "D": 3}
BLOCKED = LENGTHS | {"T": 4, "t": 2}  # tokens in blocks of two


def capture(path: Path, axes: str, dtype: str, lengths: dict[str, int]) -> np.ndarray:
    """Write one tensor with odd bytes around it; the bits are returned as (B, L, H, T, D)."""
    shape = tuple(lengths[letter] for letter in axes)
    bits = kv_bits(shape, dtype, 1)
    tensors = {"pad": ("U8", (3,), b"abc"), "key": (dtype, shape, bits.tobytes())}
    path.write_bytes(safetensors_bytes(tensors))
    missing = [letter for letter in "BLHTtD" if letter not in axes]
    full = bits.reshape(*(1 for _ in missing), *shape)
    order = [*missing, *axes]
    full = full.transpose([order.index(letter) for letter in "BLHTtD"])
    return full.reshape(*full.shape[:3], -1, full.shape[-1])


def check(path: Path, axes: str, expected: np.ndarray, heads: list[int], span: slice) -> None:
    """Read the heads and tokens of every slab; write them into zeros; compare both."""
    target = path.with_suffix(".out")
    target.write_bytes(bytes(path.stat().st_size))
    fd = os.open(target, os.O_RDWR)
    with Source(path) as source:
        slabs = slabs_of(bound(source.header.tensors[1], Role.KEY, axes, 4))
        assert len(slabs) == expected.shape[0] * expected.shape[1]
        for slab in slabs:
            wanted = expected[slab.batch, slab.layer - 4][heads, span]
            out = np.empty(wanted.shape, slab.dtype.bits)
            read_rows(source, slab, heads, span.start, span.stop, out)
            assert np.array_equal(out, wanted)
            write_rows(Sink([fd]), slab, heads, span.start, span.stop, out)
        sparse = np.zeros_like(expected)
        sparse[:, :, heads, span] = expected[:, :, heads, span]
        restored = np.zeros_like(expected)
        os.close(fd)
        data = target.read_bytes()
        for slab in slabs:
            flat = np.frombuffer(data, np.uint8)
            places = np.array(
                [
                    [slab.at(head, token) for token in range(slab.tokens)]
                    for head in range(slab.heads)
                ]
            )
            channels = np.arange(slab.channels) * slab.channel_stride
            places = places[..., None, None] + channels[:, None] + np.arange(slab.dtype.size)
            rows = np.ascontiguousarray(flat[places]).view(slab.dtype.bits)
            restored[slab.batch, slab.layer - 4] = np.reshape(rows, expected.shape[2:])
        assert np.array_equal(restored, sparse)
        # The bytes outside the tensor, and the rows that were not written, are untouched.
        assert sum(data) == np.ascontiguousarray(sparse).view(np.uint8).astype(np.int64).sum()


@pytest.mark.parametrize("dtype", list(DType))
@pytest.mark.parametrize("axes", ORDERS)
def test_every_order(tmp_path: Path, axes: str, dtype: str) -> None:
    """Every order of axes gives the same rows, for all heads, some, one, and unsorted ones."""
    expected = capture(tmp_path / "a", axes, dtype, BLOCKED if "t" in axes else LENGTHS)
    for heads in ([0, 1, 2, 3, 4], [1, 2], [4], [0, 3, 4], [3, 1]):
        for span in (slice(0, 7), slice(2, 5), slice(6, 7)):
            check(tmp_path / "a", axes, expected, heads, span)


@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_random_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject
) -> None:
    """Any lengths, heads, token range, tile and gap give NumPy's rows."""
    axes = data.draw(st.sampled_from(ORDERS))
    lengths = {letter: data.draw(st.integers(1, 6)) for letter in "BLHTtD"}
    expected = capture(tmp_path / "a", axes, data.draw(st.sampled_from(list(DType))), lengths)
    head = st.integers(0, lengths["H"] - 1)
    heads = data.draw(st.lists(head, min_size=1, max_size=lengths["H"], unique=True))
    start = data.draw(st.integers(0, expected.shape[3] - 1))
    stop = data.draw(st.integers(start + 1, expected.shape[3]))
    tile = data.draw(st.sampled_from([1, 40, 1 << 20]))
    monkeypatch.setattr(module, "TILE", tile)
    monkeypatch.setattr(tiles, "TILE", tile)
    monkeypatch.setattr(tiles, "GAP", data.draw(st.sampled_from([-1, 8, 1 << 14])))
    monkeypatch.setattr(module, "FEW", data.draw(st.sampled_from([0, 1 << 12])))
    check(tmp_path / "a", axes, expected, heads, slice(start, stop))


@pytest.mark.parametrize(("axes", "heads", "most"), [("HTD", 1, 1), ("THD", 1, 1), ("HTD", 2, 4)])
def test_few_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str, heads: int, most: int
) -> None:
    """Whole heads and interleaved heads take one read, a token range one a head."""
    capture(tmp_path / "a", axes, "F16", {"H": 4, "T": 64, "D": 16})
    reads = []
    with Source(tmp_path / "a") as source:
        slab = slabs_of(bound(source.header.tensors[1], Role.KEY, axes))[0]
        whole = os.preadv
        monkeypatch.setattr(os, "preadv", lambda *call: reads.append(call) or whole(*call))
        stop = 64 if heads == 1 else 32
        read_rows(source, slab, range(4), 0, stop, np.empty((4, stop, 16), "<u2"))
    assert len(reads) <= most


def slab_of_two() -> Slab:
    """Two heads of three tokens and four channels, at byte 0."""
    return Slab(
        role=Role.KEY,
        batch=0,
        layer=0,
        tensor="key",
        starts=range(0, 48, 24),
        tokens=3,
        channels=4,
        dtype=DType.F16,
        token_stride=8,
        channel_stride=2,
    )


@pytest.mark.parametrize(
    ("heads", "start", "stop", "shape", "dtype"),
    [
        ([0], 0, 3, (1, 2, 4), "<u2"),
        ([0], 0, 3, (1, 3, 4), "<u4"),
        ([2], 0, 3, (1, 3, 4), "<u2"),
        ([-1], 0, 3, (1, 3, 4), "<u2"),
        ([0], 0, 4, (1, 4, 4), "<u2"),
        ([0], 1, 1, (1, 0, 4), "<u2"),
        ([], 0, 3, (0, 3, 4), "<u2"),
    ],
)
def test_outside(
    heads: list[int], start: int, stop: int, shape: tuple[int, ...], dtype: str
) -> None:
    """Rows outside the slab, or of another shape or dtype, are a bug of the caller."""
    with pytest.raises(AssertionError):
        write_rows(Sink([-1]), slab_of_two(), heads, start, stop, np.zeros(shape, dtype))


def test_write_fails() -> None:
    """A write that the operating system refuses is a FileError."""
    with pytest.raises(FileError) as refusal:
        write_rows(Sink([-1]), slab_of_two(), [0], 0, 3, np.zeros((1, 3, 4), "<u2"))
    assert refusal.value.error_id == "E601"


def pages_of(slab: Slab, step: int) -> list[module.Block]:
    """A slab as blocks of `step` tokens, the last one shorter."""
    cuts = [(at, min(at + step, slab.tokens)) for at in range(0, slab.tokens, step)]
    return [
        module.Block(slab, range(slab.heads), start, stop, bits)
        for start, stop in cuts
        for bits in [np.zeros((slab.heads, stop - start, slab.channels), slab.dtype.bits)]
    ]


@pytest.mark.parametrize("most", [2, 512])
@pytest.mark.parametrize("axes", ["BLHTD", "BLTHD"])
def test_neighbouring_blocks_go_together(axes, most, tmp_path, monkeypatch):
    """Blocks have the bits of their rows; what lies side by side takes one call a head."""
    expected = capture(tmp_path / "file", axes, "F16", LENGTHS)
    monkeypatch.setattr(module, "MOST_BUFFERS", most)
    fd = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    os.truncate(fd, (tmp_path / "file").stat().st_size)
    with Source(tmp_path / "file") as source:
        for slab in slabs_of(bound(source.header.tensors[1], Role.KEY, axes)):
            blocks = pages_of(slab, 3)
            calls = []
            with monkeypatch.context() as patch:
                patch.setattr(source.__class__, "read_into", counted(calls, Source.read_into))
                module.read_blocks(source, blocks)
            rows = np.concatenate([block.rows for block in blocks], axis=1)
            assert np.array_equal(rows, expected[slab.batch, slab.layer])
            if axes == "BLHTD" and most > len(blocks) * slab.heads:
                assert calls == [slab.starts[0]]  # heads follow each other too
            module.write_blocks(Sink([fd]), blocks)
        start = source.header.tensors[1].start
    os.close(fd)
    assert (tmp_path / "copy").read_bytes()[start:] == (tmp_path / "file").read_bytes()[start:]


def counted(calls, read_into):
    def counting(source, offset, *buffers):
        calls.append(offset)
        read_into(source, offset, *buffers)

    return counting


@pytest.mark.parametrize("least", [1, 5, 100])
def test_short_reads_and_writes_go_on(least, tmp_path, monkeypatch):
    """A system that takes a few bytes a call gets the rest in the next ones."""
    expected = capture(tmp_path / "file", "BLHTD", "F16", LENGTHS)
    reading, writing = os.preadv, os.pwritev

    def few(views):
        first = next(view for view in views if len(view))
        return [first[:least]]

    monkeypatch.setattr(os, "preadv", lambda fd, views, at: reading(fd, few(views), at))
    monkeypatch.setattr(os, "pwritev", lambda fd, views, at: writing(fd, few(views), at))
    fd = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    with Source(tmp_path / "file") as source:
        slab = slabs_of(bound(source.header.tensors[1], Role.KEY, "BLHTD"))[0]
        blocks = pages_of(slab, 3)
        module.read_blocks(source, blocks)
        module.write_blocks(Sink([fd]), blocks)
    rows = np.concatenate([block.rows for block in blocks], axis=1)
    assert np.array_equal(rows, expected[0, 0])
    written = (tmp_path / "copy").read_bytes()
    os.close(fd)
    assert written[slab.starts[0] :] == expected[0, 0].tobytes()

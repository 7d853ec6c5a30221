"""coded, entropy and interleave: planes into payloads, and back through every guard."""

from __future__ import annotations

import struct
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from kvq_cli.container import coded, entropy, interleave
from kvq_cli.container.entropy import Coder, Decoder
from kvq_cli.errors import ContainerError

AT = 4096
PLANES = [bytes(300), b"", bytes(range(200))]


def refused(error: str, read: Any, *args: Any) -> int | None:
    with pytest.raises(ContainerError) as refusal:
        read(*args)
    assert refusal.value.error_id == error
    return refusal.value.offset


@pytest.mark.parametrize("coder", [None, Coder(3)], ids=["stored", "zstd"])
def test_planes_survive(coder):
    """What was coded is decoded; sizes and digests are those of formats/container.md."""
    made = coded.code(b"PAGE", b"r" * 8, PLANES, coder)
    payload = memoryview(made.payload)
    table = coded.read_table(b"PAGE", 8, payload, AT)
    assert (table.type, table.record) == (b"PAGE", b"r" * 8)
    coded.check_sizes(table, coded.exactly([300, 0, 200]), AT)
    found = coded.decode(table, payload, Decoder(), AT)
    assert [bytes(plane) for plane in found] == PLANES
    assert made.packed == 500
    assert made.stored == sum(plane.stored for plane in table.planes)
    assert (made.stored < 500) == (coder is not None)
    assert [plane.entropy for plane in table.planes] == [int(coder is not None), 0, 0]
    assert made.payload_digest == blake3(made.payload).digest()
    lengths = struct.pack("<3Q", 300, 0, 200)
    whole = b"kvq/v1/packed\0PAGE" + b"r" * 8 + struct.pack("<II", 3, 0) + lengths
    assert made.packed_digest == blake3(whole + b"".join(PLANES)).digest()


def payload(*entries: tuple[int, int, int, int], **changed: Any) -> memoryview:
    """A payload of a record of 8 bytes, whose planes are zeros."""
    start = b"r" * 8 + struct.pack(
        "<II", changed.get("count", len(entries)), changed.get("zero", 0)
    )
    table = b"".join(struct.pack("<IIQQ", *entry) for entry in entries)
    size = changed.get("size", sum(entry[2] for entry in entries))
    return memoryview(start + table + bytes(size))


@pytest.mark.parametrize(
    ("data", "places"),
    [
        (payload(), []),
        (payload((0, 0, 5, 5)), [(0, 40, 5, 5)]),
        (payload((0, 0, 5, 5), (1, 0, 7, 900)), [(0, 64, 5, 5), (1, 69, 7, 900)]),
        (payload(*[(0, 0, 0, 0)] * 64), [(0, 1552, 0, 0)] * 64),
        (payload((1, 0, 5, 5)), [(1, 40, 5, 5)]),
    ],
    ids=range(5),
)
def test_tables_that_are_read(data, places):
    """Planes lie one behind the other, behind the table."""
    assert [tuple(plane) for plane in coded.read_table(b"TENS", 8, data, AT).planes] == places


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (payload()[:15], AT),
        (payload()[:8], AT),
        (payload(zero=1), AT + 8),
        (payload(*[(0, 0, 0, 0)] * 65), AT + 8),
        (payload((0, 0, 5, 5), count=2, size=23), AT + 8),
        (payload((0, 0, 0, 0))[:39], AT + 8),
        (payload((2, 0, 5, 5)), AT + 16),
        (payload((0, 1, 5, 5)), AT + 16),
        (payload((0, 0, 5, 6)), AT + 16),
        (payload((0, 0, 5, 5), size=6), AT),
        (payload((0, 0, 5, 5), size=4), AT),
        (payload((0, 0, 5, 5), count=0), AT),
        (payload((0, 0, 1 << 63, 1 << 63), size=0), AT),
    ],
    ids=range(13),
)
def test_tables_that_are_refused(data, offset):
    """Too many planes, other words, other lengths; and where the fault lies."""
    assert refused("E304", coded.read_table, b"TENS", 8, data, AT) == offset


def test_sizes_are_those_of_the_layout():
    """As many planes, each as long, in this order."""
    table = coded.read_table(b"TENS", 8, payload((0, 0, 5, 5), (1, 0, 7, 900)), AT)
    coded.check_sizes(table, coded.exactly([5, 900]), AT)
    coded.check_sizes(table, [range(6), range(0, 1001, 2)], AT)
    for sizes in ([5], [900, 5], [5, 900, 0], [5, 899], []):
        allowed = coded.exactly(sizes)
        assert refused("E304", coded.check_sizes, table, allowed, AT) == AT
    for allowed in ([range(6), range(0, 1001, 8)], [range(5), range(901)]):
        assert refused("E304", coded.check_sizes, table, allowed, AT) == AT


@pytest.mark.parametrize("size", [128, 1000, 4 * entropy.SAMPLE, 4 * entropy.SAMPLE + 1, 1 << 17])
def test_what_saves_enough_is_coded(size):
    """Zeros are, noise is not; the frame states its size and nothing that kvq refuses."""
    coder, noise = Coder(1), blake3(b"noise").digest(length=size)
    assert coder.code(noise) is None
    frame = coder.code(bytes(size))
    assert frame is not None
    stated = zstandard.get_frame_parameters(frame)
    assert (stated.content_size, stated.dict_id, stated.has_checksum) == (size, 0, False)
    assert Decoder().decode(memoryview(frame), size, AT) == bytes(size)


def test_planes_that_stay_stored():
    """Those below 128 bytes; large ones, where their middle saves less than an eighth."""
    coder = Coder(1)
    assert coder.code(bytes(127)) is None
    assert coder.code(bytes(128)) is not None
    sample, size = entropy.SAMPLE, 8 * entropy.SAMPLE
    noise = blake3(b"noise").digest(length=size)
    middle = size // 2
    assert coder.code(bytes(middle) + noise[:sample] + bytes(middle - sample)) is None
    assert coder.code(noise[: sample * 2] + bytes(size - sample * 2)) is not None


def noisy(size: int, zeros: int) -> bytes:
    """Noise, and so many zeros behind it."""
    return blake3(b"noise").digest(length=size - zeros) + bytes(zeros)


def frame_by(level: int, plane: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        level, write_content_size=True, write_checksum=False, write_dict_id=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(plane)


def test_a_sixteenth_must_be_saved():
    """A frame that saves less is not worth the time; one that saves as much is."""
    spare = {
        size - len(frame_by(1, noisy(size, 100))) - size // 16: size for size in range(900, 1600)
    }
    assert Coder(1).code(noisy(spare[0], 100)) is not None
    assert Coder(1).code(noisy(spare[-1], 100)) is None


@pytest.mark.parametrize(("zeros", "good"), [(360, True), (260, False), (0, False)])
def test_the_middle_of_large_planes(zeros, good):
    """Whatever lies around it: half of the saving is asked of a small piece."""
    sample = entropy.SAMPLE
    plane = bytes(4 * sample) + noisy(sample, zeros) + bytes(3 * sample)
    assert (Coder(1).code(plane) is not None) == good


def test_planes_that_are_not_sampled():
    """Those of four pieces or fewer are coded whole."""
    sample = entropy.SAMPLE
    plane = bytes(2 * sample) + noisy(sample, 0) + bytes(sample)
    assert Coder(1).code(plane) is not None
    assert Coder(1).code(plane + b"\0") is None


def test_windows_stay_within_the_limit():
    """Levels whose windows are larger get the largest that a reader takes."""
    for level in (1, 19, 22):
        frame = Coder(level).code(bytes(1 << 25))
        assert frame is not None
        stated = zstandard.get_frame_parameters(frame)
        assert stated.window_size <= 1 << 23
        assert stated.content_size == 1 << 25
        assert (stated.dict_id, stated.has_checksum) == (0, False)
        assert len(Decoder().decode(memoryview(frame), 1 << 25, AT)) == 1 << 25


def frame_of(plain: bytes, window: int | None = None, dictionary: int | None = None) -> bytes:
    """A frame of raw blocks, whose header says what it is told to."""
    descriptor = 0xC0 | (0x20 if window is None else 0) | (3 if dictionary is not None else 0)
    out = b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    out += b"" if window is None else bytes([window])
    out += b"" if dictionary is None else struct.pack("<I", dictionary)
    return out + struct.pack("<Q", len(plain)) + (len(plain) << 3 | 1).to_bytes(3, "little") + plain


@pytest.mark.parametrize(
    "frame",
    [
        frame_of(b"abc"),
        frame_of(b"abc", window=13 << 3),  # 8 MiB
        frame_of(b"abc", dictionary=0),
        frame_of(b""),
    ],
    ids=range(4),
)
def test_frames_that_are_decoded(frame):
    """Windows up to the limit, and a dictionary of number 0, which is none."""
    plain = b"abc" if b"abc" in frame else b""
    assert Decoder().decode(memoryview(frame), len(plain), AT) == plain


@pytest.mark.parametrize(
    ("frame", "packed"),
    [
        (b"", 0),
        (b"\x28\xb5\x2f", 3),
        (b"\x50\x2a\x4d\x18\x00\x00\x00\x00" + frame_of(b"abc"), 3),
        (b"\x29" + frame_of(b"abc")[1:], 3),
        (b"\x50\x2a\x4d\x18\x00\x00\x00\x00", 0),
        (frame_of(b"abc"), 2),
        (frame_of(b"abc"), 4),
        (frame_of(b"abc", window=13 << 3 | 1), 3),
        (frame_of(b"abc", window=14 << 3), 3),
        (frame_of(b"abc", dictionary=7), 3),
        (frame_of(b"abc") + b"\0", 3),
        (frame_of(b"abc") + frame_of(b""), 3),
        (frame_of(b"abc")[:-1], 3),
        (frame_of(b"abc")[:6], 3),
    ],
    ids=range(14),
)
def test_frames_that_are_refused(frame, packed):
    """Another magic, size, window or dictionary; what is behind the frame or missing in it."""
    assert refused("E307", Decoder().decode, memoryview(frame), packed, AT) == AT


def test_a_large_single_segment():
    """Its window is its content, which may not be beyond the limit."""
    plain = bytes((1 << 23) + 1)
    frame = zstandard.ZstdCompressor(level=1).compress(plain)
    single = frame_of(b"")[:4] + b"\xe0" + struct.pack("<Q", len(plain)) + frame[-20:]
    assert refused("E307", Decoder().decode, memoryview(single), len(plain), AT) == AT


def test_where_a_plane_lies():
    """A refusal names the offset of the plane in the file."""
    data = payload((0, 0, 5, 5), (1, 0, 7, 900))
    table = coded.read_table(b"TENS", 8, data, AT)
    assert refused("E307", coded.decode, table, data, Decoder(), AT) == AT + 69


@pytest.mark.parametrize(
    ("dtype", "bytes_"),
    [("F64", 8), ("F32", 4), ("F16", 2), ("U8", 1), ("F4", 1), ("F6_E2M3", 1), ("BOOL", 1)],
)
def test_bytes_of_an_element(dtype, bytes_):
    """As many as it has, one where it has less."""
    assert interleave.width(dtype) == bytes_


@pytest.mark.parametrize("count", [1, 2, 4, 8])
@pytest.mark.parametrize("elements", [0, 1, 5])
def test_bytes_apart_and_together(count, elements):
    """Byte b of every element is in plane b; together they are what they were."""
    data = bytes(range(count * elements))
    planes = interleave.apart(data, count)
    assert [bytes(plane) for plane in planes] == [data[at::count] for at in range(count)]
    assert bytes(interleave.together([memoryview(bytes(plane)) for plane in planes])) == data

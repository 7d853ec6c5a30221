"""forge: chunks that hold together, whatever the bytes."""

from __future__ import annotations

import struct

import pytest

from fuzzing import forge
from fuzzing.targets import chunks

every_base = pytest.mark.parametrize("base", chunks.BASES, ids=lambda base: base.name)
RAW = chunks.BASES[0]


def pieces_of(base):
    return forge.pieces(base.chunks, base.reader.alignment)


def lied(lie, number, at=0):
    """The stream of the first base with a lie in one of its pieces."""
    stream, place = pieces_of(RAW), 0
    for _ in range(at):
        place += 3 + struct.unpack_from("<H", stream, place + 1)[0]
    kind, length = struct.unpack_from("<BH", stream, place)
    told = struct.pack("<BH", kind | forge.LIE, length + 9) + struct.pack("<BQ", lie, number)
    return stream[:place] + told + stream[place + 3 :]


def outcome(stream):
    return chunks.run(b"\0\0" + stream)


@every_base
def test_the_pieces_of_a_container_make_it_again(base):
    """To the byte: index, digests, roots and footer are all made anew."""
    assert base.forge.made(pieces_of(base)) == base.chunks


@every_base
def test_any_prefix_of_the_pieces_is_made(base):
    """No bytes make the forge fail."""
    stream = pieces_of(base)
    for cut in range(0, len(stream), 7):
        made = base.forge.made(stream[:cut] + bytes([cut % 256]) * 5)
        assert made[-8:] == b"\n\x1a\n\rQVK\x89"


def test_a_changed_byte_of_a_page_gets_behind_the_digests():
    """What E303 would hide is looked at: the value of a raw page is free."""
    stream = bytearray(pieces_of(RAW))
    page = 3 + struct.unpack_from("<H", stream, 1)[0]  # behind the head
    assert forge.TYPES[stream[page]] == b"PAGE"
    stream[page + 3 + 32 + 8 + 24] ^= 1  # behind record, count and the entry of its one plane
    changed = RAW.forge.made(bytes(stream))
    assert changed != RAW.chunks
    assert len(changed) == len(RAW.chunks)
    assert outcome(bytes(stream)) == "parsed"


@pytest.mark.parametrize(
    ("lie", "number", "error"),
    [
        (1, 1 << 40, "E304"),  # stored length
        (2, 7, "E304"),  # packed length
        (3, 5, "E304"),  # sequence
        (4, 1, "E304"),  # zero
        (5, int.from_bytes(b"XXXX", "little"), "E305"),  # type
        (forge.CRC, 1, "E303"),
        (forge.BOUND, 0, "E303"),
        (forge.PADDING, 3, "E304"),
    ],
)
def test_each_lie_is_refused_for_what_it_is(lie, number, error):
    """Behind a CRC and digests that hold, where it is not about these."""
    assert outcome(lied(lie, number, at=1)) == error


def test_an_edit_of_the_index_and_of_the_footer_is_refused():
    """A leaf with another offset; a footer with another count; bytes behind it."""
    stream = pieces_of(RAW)
    leaf = stream.index(bytes([4, 0, 0]))
    over = struct.pack("<HB", 32, 255) + b"\x01"
    edited = stream[:leaf] + struct.pack("<BH", 4, len(over)) + over + stream[leaf + 3 :]
    assert outcome(edited) == "E304"
    for edit in (bytes([24, 9]), bytes([96]) + b"x"):
        assert outcome(stream + struct.pack("<BH", 7, len(edit)) + edit) == "E304"

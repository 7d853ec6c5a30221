"""Containers that are damaged, truncated, foreign or from the future."""

from __future__ import annotations

import struct

import pytest
from blake3 import blake3

from support.captures import canonical_capture
from support.shell import done, error_line, kvq, left_alone, refused
from support.surgery import put_together, take_apart


@pytest.fixture
def container(tmp_path):
    path = tmp_path / "cache.kvq"
    (tmp_path / "source").write_bytes(canonical_capture())
    done("compress", tmp_path / "source", "-o", path)
    return path


def reforged(data, **preamble):
    """The container with other preamble fields, and every digest made anew."""
    body = take_apart(data)
    body["preamble"] |= preamble
    return put_together(body)


def test_every_truncated_container_is_refused(container):
    """Cut at every 64th byte: exit code 3 from verify, decompress and inspect, no output."""
    data = container.read_bytes()
    for size in range(0, len(data), 64):
        container.write_bytes(data[:size])
        with left_alone(container.parent):
            # Cut in its magic, a file may be anything: inspect takes it for a capture.
            for command in (
                ["verify", container],
                ["verify", "--quick", container],
                ["decompress", container, "-o", container.parent / "back"],
                ["inspect", container],
            ):
                ran = kvq(*command)
                assert (ran.code, ran.out) == (3, ""), (size, command)
                assert error_line(ran)[0] in ("E301", "E302", "E303", "E304", "E201")


@pytest.mark.parametrize(
    ("preamble", "words"),
    [({"major": 2}, "version 2"), ({"incompatible": 1 << 9}, "bit 9")],
    ids=["version", "feature"],
)
def test_containers_of_a_newer_kvq(preamble, words, container):
    """An unknown major version or incompatible bit is exit code 4, whatever the digests say."""
    container.write_bytes(reforged(container.read_bytes(), **preamble))
    with left_alone(container.parent):
        for command in ("verify", "inspect", "stats"):
            refused(kvq(command, container), 4, "E305", words)
        refused(kvq("decompress", container, "-o", container.parent / "b"), 4, "E305", words)


def test_compatible_features_are_ignored(container):
    """A compatible bit that is not known changes nothing."""
    container.write_bytes(reforged(container.read_bytes(), compatible=1 << 30))
    done("verify", container)


def test_text_mode_damage_has_its_own_words(container):
    """A container that went through CRLF translation is not a container any more."""
    container.write_bytes(container.read_bytes().replace(b"\r\n", b"\n"))
    refused(kvq("verify", container), 3, "E301")
    refused(kvq("inspect", container), 3, "E301")


def test_damage_is_named_by_its_offset(container):
    """One flipped bit in a payload: E303, the byte offset of the chunk, exit code 3."""
    data = bytearray(container.read_bytes())
    at = data.index(b"PAGE")
    data[at + 100] ^= 1
    container.write_bytes(data)
    refused(kvq("verify", container), 3, "E303", f"at byte {at}")
    with left_alone(container.parent):
        refused(kvq("decompress", container, "-o", container.parent / "back"), 3, "E303")


def test_data_behind_the_footer(container):
    """Nothing may follow the footer."""
    container.write_bytes(container.read_bytes() + b"\0")
    refused(kvq("verify", container), 3, "E304")
    refused(kvq("inspect", container), 3, "E302")


def test_a_capture_is_not_a_container(container):
    """verify and decompress of a capture say what is missing."""
    source = container.parent / "source"
    refused(kvq("verify", source), 3, "E301")
    refused(kvq("decompress", source, "-o", container.parent / "back"), 3, "E301")


def test_a_container_is_not_a_capture(container):
    """compress of a container is refused; it is not compressed twice."""
    with left_alone(container.parent):
        refused(kvq("compress", container), 3, "E201")


def test_header_lies_are_found(container):
    """A digest that holds over a header that promises other pages is still damage."""
    body = take_apart(container.read_bytes())
    body["header"]["content"]["parts"][0]["tokens"] += 1
    container.write_bytes(put_together(body))
    refused(kvq("verify", container), 3, "E304")


@pytest.mark.parametrize("lie", ["head_set", "short"])
def test_an_index_that_lies(lie, container):
    """An index of pages that the header lacks, or of too few, is refused by whoever reads it."""
    body = take_apart(container.read_bytes())
    leaf = next(chunk for chunk in body["chunks"] if chunk.get("kind") == 0)
    if lie == "short":
        leaf["short"] = 1
        body["footer"]["pages"] = 3
        root = next(chunk for chunk in body["chunks"] if chunk.get("kind") == 1)
        root["entries"] = {"0": {"count": 3}}
    else:
        pages = [chunk for chunk in body["chunks"] if chunk["type"] == "PAGE"]
        pages[-1]["record"]["head_set"] = 99
    container.write_bytes(put_together(body))
    with left_alone(container.parent):
        refused(kvq("inspect", "--pages", container), 3, "E304")
        refused(kvq("verify", container), 3, "E304")
        ran = kvq("decompress", container, "--tokens", "0:2", "-o", container.parent / "part")
        refused(ran, 3, "E304")


def test_the_digest_binds_the_header(container):
    """A flipped bit of the header JSON is E303, before anything is believed."""
    data = bytearray(container.read_bytes())
    length = struct.unpack_from("<I", data, 20)[0]
    assert blake3(b"kvq/v1/header\0" + bytes(data[:32]) + bytes(data[64 : 64 + length])).digest()
    data[64 + length // 2] ^= 4
    container.write_bytes(data)
    refused(kvq("inspect", container), 3, "E303", "header")

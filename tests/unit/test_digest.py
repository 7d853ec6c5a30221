"""digest: bytes, text and domain tags."""

import json

import pytest
from blake3 import blake3

from kvq_cli import digest

SIZES = [
    [],
    [0],
    [3, 5],
    [digest.SMALL, 7],
    [digest.SMALL + 1],
    [1, digest.SMALL + 1],
    [digest.SMALL + 1, 1],
    [2, digest.SMALL + 1, digest.SMALL * 2, 3, digest.SMALL + 1],
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_a_tag_a_zero_byte_and_the_parts(sizes, kind):
    """However long the parts are, it is one BLAKE3 of all of them in a row."""
    parts = [bytes((at + number) % 251 for at in range(size)) for number, size in enumerate(sizes)]
    whole = blake3(b"kvq/v1/test\0" + b"".join(parts)).digest()
    assert digest.tagged("kvq/v1/test", [kind(part) for part in parts]) == whole
    assert len(whole) == 32


def test_large_parts_are_not_copied(monkeypatch):
    """Those above 16 KiB are hashed where they lie, those up to it together."""
    fed = []

    class Recorder:
        def update(self, data):
            fed.append(data)

        def digest(self):
            return b""

    monkeypatch.setattr(digest, "blake3", Recorder)
    small, large = bytes(1 << 14), bytes((1 << 14) + 1)
    digest.tagged("t", [small, large, b"a", small, b"b"])
    assert fed == [b"t\0" + small, large, b"a" + small + b"b"]
    assert fed[1] is large


def test_of_plain_bytes():
    """BLAKE3 of the bytes and of nothing else; the first is the vector of no bytes."""
    none = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest.plain(b"").hex() == none
    assert digest.plain(b"kvq") == blake3(b"kvq").digest()
    assert digest.text(digest.plain(b"")) == f"blake3:{none}"


def test_of_a_json_object():
    """The schema is the tag of the compact text."""
    compact = json.dumps({"schema": "µ"}, separators=(",", ":"), ensure_ascii=False)
    whole = blake3(b"kvq_test_v1\0" + compact.encode()).hexdigest()
    assert digest.json_digest("kvq_test_v1", compact) == f"blake3:{whole}"


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("blake3:" + "0123456789abcdef" * 4, True),
        ("blake3:" + "0" * 63, False),
        ("blake3:" + "0" * 65, False),
        ("blake3:" + "A" * 64, False),
        ("blake3:" + "g" * 64, False),
        ("blake2:" + "0" * 64, False),
        ("blake3:" + "0" * 64 + "\n", False),
        (" blake3:" + "0" * 64, False),
        ("0" * 64, False),
        (b"blake3:" + b"0" * 64, False),
        (None, False),
        (7, False),
    ],
)
def test_what_reads_as_a_digest(value, good):
    """`blake3:` and 64 lower-case digits, and nothing around them."""
    assert digest.is_text(value) is good

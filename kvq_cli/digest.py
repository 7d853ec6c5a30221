"""digest: BLAKE3-256, as text and under a domain tag.

Spec: formats/README.md, section "Digests".

    bytes    "blake3:" + hex(BLAKE3(bytes))
    JSON     "blake3:" + hex(BLAKE3(schema ‖ 0x00 ‖ compact JSON))
    binary   BLAKE3(tag ‖ 0x00 ‖ parts)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, TypeAlias

from blake3 import blake3

Buffer: TypeAlias = bytes | bytearray | memoryview

SMALL: Final = 1 << 14  # up to here a copy costs less than another call
PREFIX: Final = "blake3:"
TEXT: Final = re.compile(r"blake3:[0-9a-f]{64}")


def tagged(tag: str, parts: Sequence[Buffer]) -> bytes:
    """BLAKE3 of a domain tag, a zero byte and the parts."""
    hasher = blake3()
    small: list[Buffer] = [tag.encode(), b"\0"]
    for part in parts:
        if len(part) > SMALL:
            hasher.update(b"".join(small))
            hasher.update(part)
            small = []
        else:
            small.append(part)
    hasher.update(b"".join(small))
    return hasher.digest()


def plain(data: Buffer) -> bytes:
    return blake3(data).digest()


def text(digest: bytes) -> str:
    """How a digest is written for people and in JSON."""
    return PREFIX + digest.hex()


def is_text(value: object) -> bool:
    return isinstance(value, str) and TEXT.fullmatch(value) is not None


def json_digest(schema: str, compact: str) -> str:
    """The digest of a JSON object: its schema string is the domain tag."""
    return text(tagged(schema, [compact.encode()]))

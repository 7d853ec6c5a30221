"""fibquant: digests of rotations and codebooks, and vector codes, one number at a time.

Part of the reference reader: written from `formats/fibquant-compat.md` alone, without kvq_cli
and without NumPy. Slow: for small profiles.
"""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from typing import Any

from blake3 import blake3
from reference.fibquant_tables import added, nearest, trained, turned


class Single(float):
    """A float32."""


def single(value: float) -> Single:
    return Single(struct.unpack("<f", struct.pack("<f", value))[0])


def text(value: Any) -> str:
    """Compact JSON: `contract.md`, sections "Compact JSON" and "Numbers"."""
    if isinstance(value, dict):
        return "{" + ",".join(f'"{key}":{text(member)}' for key, member in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(text, value)) + "]"
    if isinstance(value, float):
        return number_text(value)
    return f'"{value}"' if isinstance(value, str) else str(value)


def number_text(value: float) -> str:
    narrow = isinstance(value, Single)
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    for digits in range(17):
        mantissa, exponent = format(value, f".{digits}e").split("e")
        read = float(f"{mantissa}e{exponent}")
        if (single(read) if narrow else read) == value:
            break
    e = int(exponent)
    if not (-6 <= e <= 12 if narrow else -5 <= e <= 15):
        return f"{mantissa}e{e:+d}"
    fixed = format(Decimal(f"{mantissa}e{e}"), "f")
    return fixed if "." in fixed else fixed + ".0"


def digest(schema: str, value: Any) -> str:
    return "blake3:" + blake3(f"{schema}\0{text(value)}".encode()).hexdigest()


def rotation_digest(d: int, seed: int, q: list[list[float]]) -> str:
    view = {
        "rotation_schema": "fib_rotation_v1",
        "algorithm_version": "qr-gaussian-chacha8-sign-corrected-v1",
        "dim": d,
        "seed": seed,
        "matrix": [x for row in q for x in row],
    }
    return digest("fib_rotation_v1", view)


def codebook(profile: Any, turn_digest: str) -> tuple[list[list[float]], str]:
    """Codewords and digest."""
    best, report = trained(profile)
    words = [[single(x) for x in word] for word in best]
    view = {
        "schema_version": "fib_codebook_v1",
        "profile_digest": digest("fib_quant_profile_v1", profile),
        "rotation_digest": turn_digest,
        "codewords": [x for word in words for x in word],
        "init_mse": report["init_mse"],
        "training_mse": report["best_mse"],
        "refinement_report": report,
    }
    return words, digest("fib_codebook_v1", view)


def encode(q: Any, words: Any, width: int, vector: list[float]) -> tuple[bytes, bytes]:
    """Norm and packed indices."""
    norm = math.sqrt(added(x * x for x in vector))
    y = turned(q, [x / norm for x in vector])
    k, whole = len(words[0]), 0
    count = len(y) // k
    for i in range(count):
        whole |= nearest(y[i * k : i * k + k], words)[1] << (i * width)
    return struct.pack("<e", single(norm)), whole.to_bytes(-(-count * width // 8), "little")


def decode(q: Any, words: Any, width: int, norm: bytes, indices: bytes) -> bytes:
    """The vector as float32."""
    whole, length = int.from_bytes(indices, "little"), struct.unpack("<e", norm)[0]
    count = len(q) // len(words[0])
    y = [x for i in range(count) for x in words[whole >> (i * width) & (2**width - 1)]]
    x = turned([list(column) for column in zip(*q, strict=True)], y)
    return struct.pack(f"<{len(x)}f", *(value * length for value in x))

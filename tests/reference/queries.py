"""queries: the digest of a file of queries, from formats/capture.md, without kvq_cli."""

from __future__ import annotations

import json
import struct

from blake3 import blake3
from reference.header import canonical


def digest(data: bytes) -> str:
    """Of the bytes of a valid file."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    query = header["query"]
    start, stop = (8 + length + offset for offset in query["data_offsets"])
    seen = None
    if "positions" in header and not metadata.get("causal", "").startswith("false"):
        first, last = (8 + length + offset for offset in header["positions"]["data_offsets"])
        seen = list(struct.unpack(f"<{(last - first) // 8}q", data[first:last]))
    scale = metadata.get("attention_scale")
    told = {
        "dtype": query["dtype"],
        "shape": query["shape"],
        "positions": seen,
        "scale": float(scale) if scale else None,
        "rotated": metadata.get("rope_state") not in ("pre", "pre_rope"),
    }
    return "blake3:" + blake3(b"kvq_queries_v1\0" + canonical(told) + data[start:stop]).hexdigest()

"""front: preamble, header JSON and manifest of a container, and the codecs that it names.

input := how(1) rest
how    0  rest is the file
       1  rest is the header JSON; a preamble with its digest is put before it
       2  likewise, the JSON made canonical, with digests of shapes and profiles made anew
       3  rest is the preamble's first 32 bytes, then JSON; digests made anew
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from fuzzing import forge
from fuzzing.memory import Bytes
from fuzzing.vectors import containers, edited
from kvq_cli import digest
from kvq_cli.container.reader import Reader
from kvq_cli.errors import CodecError, ContainerError
from kvq_cli.steps.promised import container_codecs

JSON, MENDED, FIELDS, PARTIAL = 1, 2, 3, 4
LARGEST: Final = 2500  # bytes of a header that is fast enough
WORDS: Final = (
    "BLHTD", "BHTD", "LRBTHD", "TRDHdtu,TRtHuDd", "HTD", "TRHD", "key", "value", "F16", "BF16",
    "F32", "I64", "U8", "none", "self", "capture", "file", "zstd", "raw", "lossless", "int8",
    "int4", "kivi", "fibquant", "fib_quant", "turboquant_mse", "turboquant_prod", "fp8_e4m3",
    "fp8_e5m2", "|u1", "<f4", "<f8", "map", "hf", "canonical", "gqa", "mha", "post_rope",
    "not_applicable", "kvq_container_v1", "kvq_profile_v1", "blake3:" + "0" * 64, "a/b", "..",
    "content", "storage", "tensors", "rows", "parts", "head_sets", "codecs", "tables", "profiles",
    "continues", "token_offset", "partial", "header_digest",
    "content_root", "shape_digest", "lengths", "tokens", "axis", "group", "seed",
)  # fmt: skip


def run(data: bytes) -> str:
    made = forged(data)
    try:
        reader = Reader(Bytes(made))
        container_codecs(reader.manifest)
    except (ContainerError, CodecError) as error:
        return error.error_id
    text = made[64 : reader.header_size]
    if reader.manifest.to_bytes() != text:
        raise AssertionError("a manifest is not written as it was read")
    return "parsed"


def forged(data: bytes) -> bytes:
    how, rest = (data[0] if data else 0), data[1:]
    if how == FIELDS:
        return padded(forge.header(rest[:32].ljust(32, b"\0"), rest[32:]))
    if how not in {JSON, MENDED, PARTIAL}:
        return rest
    text = rest if how == JSON else mended(rest)
    fields = forge.preamble(len(text), log2_of(text), int(how == PARTIAL))
    return padded(forge.header(fields, text))


def padded(start: bytes) -> bytes:
    return start + bytes(-len(start) % 64)


def log2_of(text: bytes) -> int:
    """The alignment that the JSON states, where it is one."""
    at = text.rfind(b'"alignment":')
    digits = text[at + 12 : at + 20].split(b",")[0]
    number = int(digits) if digits.isdigit() else 64
    return min(max(number, 1).bit_length() - 1, 255)


def mended(text: bytes) -> bytes:
    """The JSON made canonical, and its digests those of what they stand beside."""
    try:
        value = json.loads(text)
        for each in value["content"]["profiles"]:
            each["digest"] = profile_digest(each["profile"], each["digest"])
        for part in value["content"]["parts"]:
            for role in ("key", "value"):
                mend_shape(part[role])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    try:
        return canonical(value).encode()
    except (ValueError, NameError, RecursionError):
        return text


def canonical(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def profile_digest(profile: dict[str, Any], stated: Any) -> Any:
    schema = profile.get("schema")
    if schema == "kvq_profile_v1":
        return digest.json_digest(schema, canonical(profile))
    return stated


ORDER: Final = (
    "schema_version", "role", "attention_kind", "batch", "layers", "kv_heads", "query_heads",
    "tokens", "head_dim", "dtype", "rope_state",
)  # fmt: skip


def mend_shape(part: dict[str, Any] | None) -> None:
    """A shape's digest: of its members in the contract's order."""
    if not part or not part.get("shape_digest"):
        return
    shape = part["shape"]
    ordered = {key: shape[key] for key in ORDER}
    compact = json.dumps(ordered, ensure_ascii=False, separators=(",", ":"))
    part["shape_digest"] = digest.json_digest(shape["schema_version"], compact)


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, data in containers():
        length = int.from_bytes(data[20:24], "little")
        if length < LARGEST:
            how = PARTIAL if data[12] else MENDED
            yield f"valid/{name}", bytes([how]) + data[64 : 64 + length]
    for name, data in edited("header", "preamble", "tables", "partial", "unusual"):
        length = int.from_bytes(data[20:24], "little")
        if length < LARGEST:
            yield f"{name}, raw", b"\0" + data[: 64 + length + -(64 + length) % 64]
            yield name, bytes([FIELDS]) + data[:32] + data[64 : 64 + length]

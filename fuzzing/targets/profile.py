"""profile: the JSON of profiles, calibrations and objects of the contract.

input := dims(1) rest      rest is the JSON; dims says which layer a profile is asked about
                           255: the digest of the vector profile in a KV profile is made anew
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from fuzzing.vectors import ROOT, cases, load, patched
from kvq_cli import jsontext
from kvq_cli.codecs.registry import codec_from_json, codec_to_json, names
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.objects import OBJECTS, ContractObject
from kvq_cli.contract.shape import KvTensorShapeV1
from kvq_cli.contract.vector_profile import FibQuantProfileV1
from kvq_cli.errors import CodecError, KvqError, ProfileError
from kvq_cli.profile import (
    BOUNDS,
    TARGETS,
    Calibration,
    Profile,
    cautions,
    codec_table,
    page_lengths,
    pages,
    runs,
)
from kvq_cli.profile.builtin import read_any
from kvq_cli.words import DType, PageSpec, Role

WORDS: Final = (
    "schema", "kvq_profile_v1", "kvq_profile_v2", "name", "description", "page_tokens",
    "page_layers", "rules", "role", "layers", "heads", "tokens", "codec", "key", "value", *names(),
    "axis", "channel", "token", "group", "bits", "seed", "center", "protected", "first_tokens",
    "last_tokens", "fallback", "keep_raw", "fail_closed", "budget", *BOUNDS, "ladder",
    "on_violation", "fixed_rate", "calibration_digest", "target", *TARGETS, "step", "turned",
    "storage", "entropy", "zstd", "none", "level", "alignment", "blake3:" + "0" * 64,
    "kvq_calibration_v1", "kv_heads", "bits_per_element", "profile", "head_dim", "rows",
    "mean_norm", "max_norm", "outlier_rows", "outlier_channels", "mean_energy",
    "schema_version", *OBJECTS, "attention_kind", "mha", "gqa", "mqa", "batch", "query_heads",
    "dtype", "f16", "bf16", "f32", "rope_state", "pre_rope", "post_rope", "not_applicable",
    "order", "profile_id", "shape_digest", "fib_profile", "fib_profile_digest",
    "codebook_digest", "rotation_digest", "role_policy", "axis_policy", "raw", "per_token",
    "per_channel", "role_aware_kivi_style", "page_geometry", "protected_policy",
    "fallback_policy", "quality_budget", "mode", "ambient_dim", "block_dim", "codebook_size",
    "tokens_per_page", "raw_layers", "raw_heads", "first_tokens_raw", "last_tokens_raw",
    "missing:calibration",
)  # fmt: skip
MEND: Final = 255
CALIBRATION: Final = {
    "schema": "kvq_calibration_v1", "layers": 2, "kv_heads": [2, 1], "first_tokens": 4,
    "profile": "int8", "bits_per_element": 8.25, "value": None,
    "key": {"head_dim": 64, "rows": 96, "mean_norm": 1.5, "max_norm": 3.25, "outlier_rows": 1,
            "outlier_channels": [[0, 1, 63]], "mean_energy": 0.5, "axis": "channel"},
}  # fmt: skip
SHAPE: Final = KvTensorShapeV1.from_json(load("contract/invalid")["groups"][0]["base"])
LAYERS: Final = (1, 2, 4, 61)
HEADS: Final = (1, 2, 8, 33)
TOKENS: Final = (1, 5, 300, 4097)


def run(data: bytes) -> str:
    dims, text = (data[0] if data else 0), data[1:]
    try:
        found = read_any(mended(text) if dims == MEND else text)
    except ProfileError as error:
        return error.error_id
    if isinstance(found, Profile):
        held(found)
        asked(found, dims)
    elif isinstance(found, Calibration):
        again = Calibration.from_json(found.to_json())
        if again.digest() != found.digest():
            raise AssertionError("a calibration is not read as it was written")
    else:
        written(found)
    return "parsed"


def held(profile: Profile) -> None:
    """The normal form is a profile, equal, with the same digest and text."""
    text = jsontext.canonical(profile.to_json())
    again = read_any(text.encode())
    if not isinstance(again, Profile) or again.digest() != profile.digest():
        raise AssertionError("a normal form has another digest")
    if jsontext.canonical(again.to_json()) != text:
        raise AssertionError("a normal form is not its own normal form")
    cautions(profile)


def written(found: ContractObject) -> None:
    """What is written is read as the same, with the same digest; a KV profile has a shape."""
    again: Any = read_any(found.compact().encode())
    if again != found or again.digest() != found.digest():
        raise AssertionError("an object is not read as it was written")
    # A digest of another shape is explained by a search, which takes 0.3 s.
    if isinstance(found, KvCompressionProfileV1) and found.shape_digest == SHAPE.digest():
        with suppress(ProfileError):
            found.validate_for_shape(SHAPE)


def mended(text: bytes) -> bytes:
    """The JSON with the digest of its vector profile, where that is one."""
    try:
        value = json.loads(text)
        value["fib_profile_digest"] = FibQuantProfileV1.from_json(value["fib_profile"]).digest()
        return json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, KeyError, TypeError, RecursionError, KvqError):
        return text


def asked(profile: Profile, dims: int) -> None:
    """Runs hold each head and token of a layer once; codecs have layouts or refuse the spec."""
    layers, heads, tokens = LAYERS[dims & 3], HEADS[dims >> 2 & 3], TOKENS[dims >> 4 & 3]
    role = Role(dims.bit_count() & 1)
    found = runs(profile, role, layers - 1, layers=layers, heads=heads, tokens=tokens)
    total = sum(len(each.heads) * (each.stop - each.start) for each in found)
    if total != heads * tokens:
        raise AssertionError("runs do not hold each head and token once")
    for each in found[:2]:
        lengths = page_lengths(each, profile.page_tokens)
        if tokens < 1000:
            cut = pages(each, profile.page_tokens)
            assert sum(lengths.values()) == len(cut), "pages are counted wrong"
        assert sum(a * b for a, b in lengths.items()) == each.stop - each.start
    spec = PageSpec(heads, min(tokens, 64), (4, 64, 128, 80)[dims >> 6 & 3], DType.F16)
    for codec in codec_table(profile)[1:4]:
        told = codec_to_json(codec)
        built = codec_from_json(told["name"], told["params"], "", revision=told["revision"])
        assert built == codec, "a codec is not what its JSON says"
        with suppress(CodecError):
            codec.layout(spec)


def seeds() -> Iterator[tuple[str, bytes]]:
    for name, value in cases("profile", "profile"):
        text = jsontext.canonical(value).encode()
        if len(text) < 2000:
            yield name, bytes([len(text) % 251]) + text
    for path in sorted((ROOT / "kvq_cli" / "profiles").glob("*.json")):
        yield path.name, b"\x25" + compact(json.loads(path.read_text("utf-8")))
    yield "calibration", b"\0" + compact(CALIBRATION)
    yield from objects()


def objects() -> Iterator[tuple[str, bytes]]:
    """The contract's objects, valid and not."""
    valid = load("contract/fibquant")
    for group in (
        "shapes", "layouts", "page_geometries", "vector_profiles", "lloyd_mode", "kv_profiles",
        "calibration_summaries",
    ):  # fmt: skip
        for number, case in enumerate(valid[group]):
            yield f"{group} {number}", b"\0" + case["json"].encode()
    for group in load("contract/invalid")["groups"]:
        for case in group["cases"]:
            if case["patch"]:
                value = patched(group["base"], case["patch"])
                yield f"{group['object']}, {case['name']}", bytes([MEND]) + compact(value)


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()

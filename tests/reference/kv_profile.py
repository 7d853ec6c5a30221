"""kv_profile: the digest of a KV profile, from formats/contract.md.

Part of the reference reader: written from `formats/` alone, without kvq_cli. A header sorts
members and writes floats as JSON does; the digest wants the order of the tables and their
form of floats, so the text is made again.
"""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

from blake3 import blake3
from reference.refused import need

SCHEMA = "fib_quant_kv_compression_profile_v1"
ORDER = {
    "": "schema_version profile_id shape_digest fib_profile fib_profile_digest codebook_digest"
    " rotation_digest role_policy axis_policy page_geometry protected_policy fallback_policy"
    " quality_budget calibration_digest",
    "fib_profile": "schema_version ambient_dim block_dim codebook_size paper_rate_bits_per_coord"
    " wire_index_bits wire_bits_per_coord norm_format rotation_seed rotation_algorithm_version"
    " codebook_seed codebook_version source_mode radius_method direction_method lloyd_restarts"
    " lloyd_iterations training_samples empty_cell_policy lloyd_mode",
    "page_geometry": "schema_version tokens_per_page vectors_per_block head_dim"
    " encoded_block_bytes raw_vector_bytes",
    "protected_policy": "first_tokens_raw last_tokens_raw raw_layers raw_heads",
    "fallback_policy": "mode raw_fallback_available",
    "quality_budget": "max_logit_mse max_attention_tv max_topk_disagreement"
    " max_value_aggregation_mse fallback_on_violation",
}


def digest(profile: dict[str, Any]) -> str:
    """The digest text of a KV profile; Refused where members are missing or unknown."""
    return "blake3:" + blake3(f"{SCHEMA}\0{compact(profile, '')}".encode()).hexdigest()


def compact(value: Any, name: str) -> str:
    if type(value) is float:
        return number(value)
    if type(value) is not dict:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # `lloyd_mode` is the one member that may be left out.
    names = [one for one in ORDER.get(name, "").split() if one in value or one != "lloyd_mode"]
    need(set(names) == set(value), "members of a KV profile")
    return "{" + ",".join(f'"{one}":{compact(value[one], one)}' for one in names) + "}"


def number(value: float) -> str:
    """Fixed from 1e-5 to below 1e16, else scientific; always the shortest digits."""
    if value == 0:
        return "-0.0" if math.copysign(1, value) < 0 else "0.0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text, first = "".join(map(str, digits)), len(digits) + int(exponent) - 1
    if -5 <= first <= 15:
        fixed = f"{Decimal(repr(value)).normalize():f}"
        return fixed if "." in fixed else fixed + ".0"
    rest = "." + text[1:] if text[1:] else ""
    return f"{'-' * sign}{text[0]}{rest}e{first:+d}"

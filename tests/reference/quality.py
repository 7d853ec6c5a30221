"""quality: the `qual` chunk, from formats/container.md, section "Quality", without kvq_cli."""

from __future__ import annotations

import json
import math
from typing import Any

from reference.header import canonical
from reference.refused import Refused, need

BOUNDS = frozenset(
    f"max_{name}"
    for name in (
        "logit_mse",
        "attention_tv",
        "topk_disagreement",
        "value_aggregation_mse",
        "relative_mse",
    )
) | {"min_attention_cosine"}


def check_quality(payload: bytes) -> None:
    """Refused unless the payload is what a writer may write."""
    need(len(payload) <= 65536, "qual is too long")
    try:
        told = json.loads(payload.decode())
    except (ValueError, RecursionError) as error:
        raise Refused("qual is no JSON") from error
    need(isinstance(told, dict) and set(told) == {"schema", "bounds", "worst"}, "qual members")
    need(told["schema"] == "kvq_quality_v1", "qual schema")
    bounds, worst = told["bounds"], told["worst"]
    need(isinstance(bounds, dict) and isinstance(worst, dict), "qual objects")
    need(set(worst) <= set(bounds) <= BOUNDS, "qual bounds")
    need(all(is_float(bound) for bound in bounds.values()), "a bound is no number")
    for each in worst.values():
        need(isinstance(each, dict) and set(each) == {"value", "layer", "head"}, "qual figure")
        need(is_float(each["value"]), "a figure is no number")
        need(all(type(each[at]) is int and each[at] >= 0 for at in ("layer", "head")), "qual place")
    need(canonical(told) == payload, "qual is not canonical")


def is_float(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)

"""verdict: bounds of quality budgets, and how near a container comes to them.

Spec: formats/profile.md, section "budget"; formats/container.md, section "Quality".

A container whose profile has a budget says in a `qual` chunk what was measured: so verify can
hold it against the budget without the capture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.errors import ContainerError, ProfileError
from kvq_cli.profile import BOUNDS, Budget
from kvq_cli.record import record

SCHEMA: Final = "kvq_quality_v1"
MAX_BYTES: Final = 1 << 16
WRONG: Final = "qual chunk holds a value outside the spec"
RELATIVE: Final = "max_relative_mse"
# What each bound of attention bounds.
METRIC: Final = {
    "max_logit_mse": "logit_mse",
    "max_attention_tv": "attention_tv",
    "max_topk_disagreement": "topk_disagreement",
    "max_value_aggregation_mse": "value_aggregation_mse",
    "min_attention_cosine": "attention_cosine",
}

Bounds = dict[str, float]


@record
class Worst:
    """How near something came to a bound."""

    value: float
    layer: int
    head: int  # query head; of max_relative_mse kv head

    def to_json(self) -> dict[str, Any]:
        return {"value": self.value, "layer": self.layer, "head": self.head}


Found = dict[str, Worst]  # by bound
Quality = tuple[Bounds, Found]  # what a `qual` chunk tells


def strictest(budgets: Iterable[Budget | None]) -> Bounds:
    """The bounds that somebody sets, of each the strictest."""
    known = [budget for budget in budgets if budget is not None]
    found = {}
    for name in BOUNDS:
        told = [bound for budget in known if (bound := getattr(budget, name)) is not None]
        if told:
            found[name] = max(told) if name.startswith("min_") else min(told)
    return found


def holds(name: str, value: Any, bound: float) -> Any:
    """Whether a value, or each of an array, is within a bound."""
    return value >= bound if name.startswith("min_") else value <= bound


def nearest(one: Found, other: Found) -> Found:
    """The worse of each; the first of equals."""
    found = dict(one)
    for name, each in other.items():
        sign = -1 if name.startswith("min_") else 1
        if name not in found or sign * each.value > sign * found[name].value:
            found[name] = each
    return found


def broken_line(found: Found, bounds: Bounds) -> str | None:
    """Which bounds do not hold, where and by what; None where all do."""
    lines = [
        f"{name} {bounds[name]:.6g}: {each.value:.6g} in layer {each.layer}, head {each.head}"
        for name, each in sorted(found.items())
        if name in bounds and not holds(name, each.value, bounds[name])
    ]
    return f"quality budget is not kept: {'; '.join(lines)}" if lines else None


def quality_bytes(bounds: Bounds, found: Found) -> bytes:
    """The payload of a `qual` chunk."""
    worst = {name: each.to_json() for name, each in found.items()}
    return jsontext.canonical({"schema": SCHEMA, "bounds": bounds, "worst": worst}).encode()


def read_quality(payload: bytes, offset: int) -> Quality:
    """Bounds and figures of a `qual` chunk; ContainerError E304 where it is none."""
    try:
        told = jsontext.loads(payload, limit=MAX_BYTES)
        bounds = {name: _number(bound) for name, bound in told["bounds"].items()}
        worst = {name: _worst(each) for name, each in told["worst"].items()}
        # What is written again from it is the same, so it is canonical and holds nothing more.
        sound = worst.keys() <= bounds.keys() <= set(BOUNDS)
        sound = sound and quality_bytes(bounds, worst) == payload
    except (ProfileError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ContainerError("E304", WRONG, offset) from error
    if not sound:
        raise ContainerError("E304", WRONG, offset)
    return bounds, worst


def _worst(told: Mapping[str, Any]) -> Worst:
    layer, head = told["layer"], told["head"]
    if type(layer) is not int or type(head) is not int or min(layer, head) < 0:
        raise ValueError
    return Worst(_number(told["value"]), layer, head)


def _number(told: object) -> float:
    if type(told) is not float:
        raise ValueError
    return told

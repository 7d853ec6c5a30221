"""rotary: how the keys of a layer were turned, as the metadata of their capture tells.

Spec: formats/transform.md, section "Rotary positions"; formats/capture.md, section "Metadata".

    rope_state     post: turned; pre: to be turned; none: never
    rope_theta     a number, or one for each word of layer_types
    rope_scaling   an object with rope_type, or one for each word of layer_types
    rope_style     half-rotated or interleaved

What is not told is not guessed: keys that are turned wrongly would only be larger, and nobody
would know why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Context, Decimal, localcontext
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.capture.facts import MAX_VALUE
from kvq_cli.codecs.basis import MAX_COARSE, Turn
from kvq_cli.errors import CaptureError, ProfileError, UsageError
from kvq_cli.record import record
from kvq_cli.steps import frequencies

STYLES: Final = {"half-rotated": False, "interleaved": True}
TURNED: Final = {"post": True, "post_rope": True, "pre": False, "pre_rope": False}
FINE: Final = 256  # positions between those of the coarse table
COARSE: Final = 512

# What each type of scaling must say, and what it may say instead of these.
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings",
    ),
    "yarn": ("factor", "original_max_position_embeddings"),
}  # fmt: skip
USUAL: Final = {"yarn": {"beta_fast": 32, "beta_slow": 1, "truncate": True}}
MAY: Final = {"yarn": ("attention_factor", "mscale", "mscale_all_dim")}
COMMON: Final = frozenset(
    {"rope_type", "type", "rope_theta", "partial_rotary_factor", "max_position_embeddings"}
)


@record
class Rotary:
    """Turns of one layer: equal ones share a table."""

    interleaved: bool
    frequencies: frequencies.Frequencies
    factor: float = 1.0  # of yarn: cosines and sines of the model have it, tables do not

    def turn(self, positions: int) -> Turn:
        """The tables for so many positions, and 131,072 at least."""
        coarse = max(COARSE, -(-positions // FINE))
        if coarse > MAX_COARSE:
            found = f"{positions} positions, at most {MAX_COARSE * FINE} are turned"
            raise CaptureError("E207", found)
        fine = frequencies.table(self.frequencies, 1, FINE)
        return Turn(self.interleaved, fine, frequencies.table(self.frequencies, FINE, coarse))


def turned_state(identity: Mapping[str, str]) -> bool | None:
    """Whether keys are turned; None where they never are."""
    state = identity.get("rope_state")
    if state == "none":
        return None
    if state not in TURNED:
        told = "nothing" if state is None else f'"{state}"'
        raise _refusal(
            f"of rope_state it says {told}: give --meta rope_state=post where keys have rotary "
            "positions, pre where they have not yet, none where the model has none"
        )
    return TURNED[state]


def rotary_of(identity: Mapping[str, str], place: int, channels: int) -> Rotary:
    """How the layer at this place of the capture is turned; UsageError where it is not told."""
    kind = kind_of(identity, place)
    told = _scaling(identity, kind)
    theta = _theta(identity, kind, told)
    style = identity.get("rope_style", "half-rotated")
    if style not in STYLES:
        raise _refusal(f'rope_style is "{style}", {" or ".join(STYLES)} is expected')
    part = _number(told.get("partial_rotary_factor", 1), "partial_rotary_factor")
    turning = int(channels * min(part, Decimal(1)))
    if turning % 2 or not turning:
        raise _refusal(f"{turning} of {channels} channels turn, which is no number of pairs")
    name, numbers = _numbers(told)
    with localcontext(Context(prec=50)):
        plainly = frequencies.plain(theta, turning)
        found = frequencies.SCALINGS[name](plainly, theta, numbers)
        factor = float(frequencies.yarn_attention(numbers)) if name == "yarn" else 1.0
    return Rotary(STYLES[style], found, factor)


def kind_of(identity: Mapping[str, str], place: int) -> str | None:
    """The word of layer_types for the layer at this place, if there is one."""
    if not identity.get("layer_types"):
        return None
    words = _json(identity, "layer_types")
    if not isinstance(words, list) or place >= len(words) or not isinstance(words[place], str):
        raise _refusal("layer_types is no array of a word for each layer")
    return str(words[place])


def _theta(identity: Mapping[str, str], kind: str | None, scaling: Mapping[str, Any]) -> Decimal:
    told = _json(identity, "rope_theta") if identity.get("rope_theta") else None
    if isinstance(told, dict):
        told = told.get(kind)
    if told is None:
        told = scaling.get("rope_theta")
    if told is None:
        of_layer = f" for {kind}" if kind else ""
        raise _refusal(f"there is no rope_theta{of_layer}: give --meta rope_theta=NUMBER")
    theta = _number(told, "rope_theta")
    if theta <= 1:
        raise _refusal(f"rope_theta is {theta}, more than 1 is expected")
    return theta


def _scaling(identity: Mapping[str, str], kind: str | None) -> Mapping[str, Any]:
    """What rope_scaling says of layers of this kind; nothing where there is none."""
    if not identity.get("rope_scaling"):
        return {}
    told = _json(identity, "rope_scaling")
    if isinstance(told, dict) and kind in told:
        told = told[kind] or {}
    if told is None:
        return {}
    if not isinstance(told, dict):
        raise _refusal("rope_scaling is no object")
    return told


def _numbers(told: Mapping[str, Any]) -> tuple[str, dict[str, Decimal]]:
    """The type of scaling, and its numbers; what is not known is refused."""
    name = told.get("rope_type", told.get("type", "default"))
    if not isinstance(name, str) or name not in frequencies.SCALINGS:
        words = ", ".join(frequencies.SCALINGS)
        raise _refusal(f'rope_type is "{name}", only {words} are undone')
    usual = USUAL.get(name, {})
    known = {*NEEDED[name], *usual, *MAY.get(name, ())}
    odd = sorted(told.keys() - known - COMMON) if name != "default" else []
    missing = [each for each in NEEDED[name] if told.get(each) is None]
    if odd or missing or "mrope_section" in told:
        what = f"{missing[0]} is missing" if missing else f"{(odd or ['mrope_section'])[0]} is odd"
        raise _refusal(f"rope_scaling {name}: {what}")
    found = {**usual, **{each: told[each] for each in known if told.get(each) is not None}}
    numbers = {each: _number(value, each) for each, value in found.items()}
    if name == "llama3" and numbers["high_freq_factor"] <= numbers["low_freq_factor"]:
        raise _refusal("rope_scaling llama3: high_freq_factor is not above low_freq_factor")
    return name, numbers


def _number(value: object, name: str) -> Decimal:
    """A number as it stands there; true and false are 1 and 0."""
    zero_too = name == "truncate"
    if not isinstance(value, int | float) or not (zero_too or 0 < value < math.inf):
        raise _refusal(f"{name} is {value!r}, a positive number is expected")
    if value > 2**64:
        raise _refusal(f"{name} is {value!r}, which is too large")
    return Decimal(value)


def _json(identity: Mapping[str, str], key: str) -> Any:
    try:
        return jsontext.loads(identity[key].encode(), limit=4 * MAX_VALUE)
    except ProfileError as error:
        raise _refusal(f"{key} is no JSON: {error}") from error


def _refusal(what: str) -> UsageError:
    return UsageError("E101", f"rotary positions: {what}; see --meta")

"""geometry: how large a cache is that nobody has captured, by numbers or by a model's name.

Spec: formats/report.md, section "stats --plan".

Every layer holds every token: a model whose layers forget what left a window is not listed.
"""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Final

from kvq_cli.errors import UsageError
from kvq_cli.record import record
from kvq_cli.words import DType

# What a container's header can say; all heads of all layers are listed on the way to it.
MOST: Final = types.MappingProxyType(
    {
        "layers": 1 << 15,
        "kv_heads": 1 << 16,
        "tokens": 1 << 40,
        "head_dim": 1 << 20,
        "batch": 1 << 15,
    }
)
MOST_HEADS: Final = 1 << 20
MOST_BYTES: Final = 1 << 50  # of a tensor


@record
class Geometry:
    """Keys and values of one shape in every layer."""

    layers: int
    kv_heads: int
    tokens: int
    head_dim: int
    batch: int = 1
    dtype: DType = DType.F16
    model: str | None = None  # whose numbers were taken

    def __post_init__(self) -> None:
        for name, most in MOST.items():
            number = getattr(self, name)
            if not 1 <= number <= most:
                raise UsageError("E101", f"{name} {number}, 1 to {most} are allowed")
        if self.layers * self.kv_heads > MOST_HEADS:
            found = f"{self.layers} layers of {self.kv_heads} kv heads"
            raise UsageError("E101", f"{found}, at most {MOST_HEADS} heads are allowed in all")
        if self.role_bytes > MOST_BYTES:
            found = f"{self.role_bytes} bytes of keys and of values"
            raise UsageError("E101", f"{found}, at most {MOST_BYTES} are allowed")

    @property
    def shape(self) -> tuple[int, ...]:
        """Of keys and of values, as a canonical capture has them."""
        return (self.batch, self.layers, self.kv_heads, self.tokens, self.head_dim)

    @property
    def elements(self) -> int:
        return 2 * math.prod(self.shape)

    @property
    def role_bytes(self) -> int:
        """Of keys or of values."""
        return math.prod(self.shape) * self.dtype.size

    def to_json(self) -> dict[str, Any]:
        numbers = {name: getattr(self, name) for name in MOST}
        return {"model": self.model, **numbers, "dtype": self.dtype.lower()}


def _model(layers: int, kv_heads: int, head_dim: int, dtype: DType = DType.BF16) -> dict[str, Any]:
    return {"layers": layers, "kv_heads": kv_heads, "head_dim": head_dim, "dtype": dtype}


# As the published config.json of each says; the dtype is that of its weights. Of Mistral the
# versions from 0.2 on, of Phi-3 the one for 128k tokens: no window forgets a token of theirs.
MODELS: Final[Mapping[str, Mapping[str, Any]]] = types.MappingProxyType(
    {
        "gemma-7b": _model(28, 16, 256),
        "llama-2-7b": _model(32, 32, 128, DType.F16),
        "llama-3.1-8b": _model(32, 8, 128),
        "llama-3.1-70b": _model(80, 8, 128),
        "mistral-7b": _model(32, 8, 128),
        "phi-3-mini": _model(32, 32, 96),
        "qwen2.5-1.5b": _model(28, 2, 128),
        "qwen2.5-7b": _model(28, 4, 128),
        "qwen2.5-72b": _model(80, 8, 128),
        "qwen3-8b": _model(36, 8, 128),
        "qwen3-32b": _model(64, 8, 128),
        "smollm2-135m": _model(30, 3, 64),
    }
)


def geometry_of(
    model: str | None = None, dtype: str | None = None, **numbers: int | None
) -> Geometry:
    """The geometry of these numbers, and for those that are None of the model; UsageError without.

    Names are looked up as those of profiles: case, and - or _, do not matter.
    """
    known = {} if model is None else {**MODELS[_name(model)], "model": _name(model)}
    known |= {name: number for name, number in numbers.items() if number is not None}
    known |= {} if dtype is None else {"dtype": DType[dtype.upper()]}
    missing = [name for name in ("layers", "kv_heads", "head_dim", "tokens") if name not in known]
    if missing:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        instead = "" if missing == ["tokens"] else "; --model NAME tells all but --tokens"
        raise UsageError("E101", f"--plan needs {options}{instead}")
    return Geometry(**known)


def _name(asked: str) -> str:
    """The model that is meant; UsageError if there is none."""
    plain = asked.lower().replace("_", "-")
    if plain in MODELS:
        return plain
    near = difflib.get_close_matches(plain, MODELS, n=1)
    hint = f'did you mean "{near[0]}"? ' if near else ""
    raise UsageError("E101", f'no model "{asked}"; {hint}available: {", ".join(MODELS)}')

"""instances: the codecs with the parameters that are measured, by the names tables show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import Any, Final, get_args, get_type_hints

from kvq_cli.codecs import Codec
from kvq_cli.codecs.registry import CODECS, codec_from_json, codec_to_json, names, newest
from kvq_cli.codecs.transform import Transform
from kvq_cli.errors import ProfileError

# Name, codec, parameters. Scales are halves, as in the built-in profiles, unless a name says so.
_NAMED: Final[tuple[tuple[str, str, Mapping[str, object]], ...]] = (
    ("raw", "raw", {}),
    ("lossless", "lossless", {}),
    ("int8 token", "int8", {"scale": "f16"}),
    ("int8 token f32 scale", "int8", {"scale": "f32"}),
    ("int8 channel", "int8", {"scale": "f16", "axis": "channel"}),
    ("int8 token centred", "int8", {"scale": "f16", "center": True}),
    ("fp8_e4m3", "fp8_e4m3", {"scale": "f16"}),
    ("fp8_e4m3 f32 scale", "fp8_e4m3", {"scale": "f32"}),
    ("fp8_e4m3 centred", "fp8_e4m3", {"scale": "f16", "center": True}),
    ("fp8_e5m2", "fp8_e5m2", {"scale": "f16"}),
    ("int4 g64", "int4", {"group": 64}),
    ("int4 g64 centred", "int4", {"group": 64, "center": True}),
    ("int4 g64 zero point", "int4", {"group": 64, "zero_point": True}),
    ("int4 g32", "int4", {"group": 32}),
    ("int4 g32 zero point", "int4", {"group": 32, "zero_point": True}),
    ("kivi 8 channel g64", "kivi", {"bits": 8, "group": 64, "axis": "channel"}),
    ("kivi 8 token g64", "kivi", {"bits": 8, "group": 64, "axis": "token"}),
    ("kivi 4 channel g64", "kivi", {"bits": 4, "group": 64, "axis": "channel"}),
    ("kivi 4 channel", "kivi", {"bits": 4, "group": 32, "axis": "channel"}),
    ("kivi 4 token", "kivi", {"bits": 4, "group": 32, "axis": "token"}),
    ("kivi 2 channel", "kivi", {"bits": 2, "group": 32, "axis": "channel"}),
    ("kivi 2 token", "kivi", {"bits": 2, "group": 32, "axis": "token"}),
    ("kivi 2 token g64", "kivi", {"bits": 2, "group": 64, "axis": "token"}),
    ("turboquant_mse 4", "turboquant_mse", {"bits": 4}),
    ("turboquant_mse 4 centred", "turboquant_mse", {"bits": 4, "center": True}),
    ("turboquant_mse 4 haar", "turboquant_mse", {"bits": 4, "rotation": "haar"}),
    ("turboquant_mse 3", "turboquant_mse", {"bits": 3}),
    ("turboquant_mse 2", "turboquant_mse", {"bits": 2}),
    ("turboquant_prod 4", "turboquant_prod", {"bits": 4}),
    ("turboquant_prod 3", "turboquant_prod", {"bits": 3}),
    ("fibquant 2 64", "fibquant", {"block": 2, "size": 64}),
    ("fibquant 4 4096", "fibquant", {"block": 4, "size": 4096}),
    ("fibquant 4 256", "fibquant", {"block": 4, "size": 256}),
    ("fibquant 4 256 centred", "fibquant", {"block": 4, "size": 256, "center": True}),
    ("fibquant 8 256", "fibquant", {"block": 8, "size": 256}),
)


def named() -> Mapping[str, Codec]:
    """What tables show, in their order."""
    return MappingProxyType(
        {name: codec_from_json(codec, params, "") for name, codec, params in _NAMED}
    )


def every() -> Mapping[str, Codec]:
    """Each codec with its defaults, then with one parameter changed at a time.

    A codec with tables fits one head_dim, or one calibration: benchmarks/compat_speed.py and
    benchmarks/transform_speed.py measure those.
    """
    return MappingProxyType(
        {repr(codec): codec for name in names() if _free(name) for codec in _variants(name)}
    )


def _free(name: str) -> bool:
    if name == Transform.name:
        return False
    return all(each.default is not MISSING for each in fields(CODECS[name, newest(name)]))


def _variants(name: str) -> Iterator[Codec]:
    default = codec_from_json(name, {}, "")
    yield default
    kind = CODECS[name, newest(name)]
    hints = get_type_hints(kind)
    chosen: dict[str, Any] = codec_to_json(default)["params"]
    for field in fields(kind):
        hint = hints[field.name]
        for value in (False, True) if hint is bool else get_args(hint):
            if value != chosen[field.name]:
                with suppress(ProfileError):  # a rule across parameters forbids it
                    yield codec_from_json(name, {**chosen, field.name: value}, "")

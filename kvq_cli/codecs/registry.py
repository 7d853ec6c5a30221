"""registry: the closed table of codecs, and their parameters from and to JSON.

Spec: formats/codecs/, where each codec has a page that lists its parameters.

A name from a file goes through CODECS and nowhere else. A profile's codec name means the
newest revision; a superseded revision keeps its own file and decodes for ever.

    Literal[…]           one of these values, of just this JSON type
    bool, int, str       that JSON type; an int field's metadata may state minimum and maximum,
                         a str field's a pattern, which holds for all of it
    … | None             or null
"""

from __future__ import annotations

import difflib
import json
import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from kvq_cli.codecs import Codec
from kvq_cli.codecs.fib_quant import FibQuant
from kvq_cli.codecs.fibquant import Fibquant
from kvq_cli.codecs.fp8_e4m3 import Fp8E4M3
from kvq_cli.codecs.fp8_e5m2 import Fp8E5M2
from kvq_cli.codecs.int4 import Int4
from kvq_cli.codecs.int8 import Int8
from kvq_cli.codecs.kivi import Kivi
from kvq_cli.codecs.lossless import Lossless
from kvq_cli.codecs.raw import Raw
from kvq_cli.codecs.transform import Transform
from kvq_cli.codecs.turboquant_mse import TurboquantMse
from kvq_cli.codecs.turboquant_prod import TurboquantProd
from kvq_cli.errors import CodecError, ProfileError
from kvq_cli.jsontext import pointer as member

_ALL: Final[tuple[type[Any], ...]] = (
    Raw,
    Lossless,
    Int8,
    Fp8E4M3,
    Fp8E5M2,
    Int4,
    Kivi,
    Fibquant,
    TurboquantMse,
    TurboquantProd,
    FibQuant,
    Transform,
)

CODECS: Final[Mapping[tuple[str, int], type[Any]]] = types.MappingProxyType(
    {(codec.name, codec.revision): codec for codec in _ALL}
)
if len(CODECS) != len(_ALL):
    raise AssertionError("two codecs share a name and revision")


def names() -> list[str]:
    return sorted({name for name, _ in CODECS})


def newest(name: str) -> int:
    """The newest revision of a codec; CodecError E503 where there is none of this name."""
    revisions = [revision for known, revision in CODECS if known == name]
    if not revisions:
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.5)
        hint = f", did you mean {json.dumps(near[0])}?" if near else ""
        raise CodecError(
            "E503", f"no codec {json.dumps(name)}{hint}; available: {', '.join(names())}"
        )
    return max(revisions)


@cache
def _parameters(name: str, revision: int) -> dict[str, tuple[Field[Any], Any]]:
    """The parameters of a codec: field and type, by name. Type hints are slow to read."""
    kind = CODECS[name, revision]
    hints = get_type_hints(kind)
    return {field.name: (field, hints[field.name]) for field in fields(kind)}


def codec_from_json(
    name: str, params: Mapping[str, object], pointer: str, *, revision: int | None = None
) -> Codec:
    """A codec; `pointer` is the JSON pointer of its params. Members left out take defaults."""
    latest = newest(name)
    wanted = latest if revision is None else revision
    if (name, wanted) not in CODECS:
        raise CodecError("E503", f"codec {name} has no revision {wanted}, the newest is {latest}")
    known = _parameters(name, wanted)
    for key, value in params.items():
        place = member(pointer, key)
        if key not in known:
            allowed = ", ".join(sorted(known)) or "none"
            raise ProfileError("E401", f"codec {name} has no such parameter, only {allowed}", place)
        field, hint = known[key]
        _check(hint, field, value, place)
    for key, (field, _) in known.items():
        if field.default is MISSING and key not in params:
            raise ProfileError("E401", f"codec {name} lacks its parameter {key}", pointer)
    try:
        codec: Codec = CODECS[name, wanted](**params)
    except ValueError as error:
        # Rules across parameters live in __post_init__.
        raise ProfileError("E401", f"codec {name}: {error}", pointer) from error
    return codec


def codec_to_json(codec: Codec) -> dict[str, Any]:
    """Name, revision and every parameter, sorted, defaults included."""
    kind = CODECS[codec.name, codec.revision]
    params = {name: getattr(codec, name) for name in sorted(field.name for field in fields(kind))}
    return {"name": codec.name, "revision": codec.revision, "params": params}


def _check(hint: Any, field: Field[Any], value: object, place: str) -> None:
    allowed: list[str] = []
    for choice in get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,):
        if get_origin(choice) is Literal:
            # True equals 1, but a JSON true is no 1: types are compared too.
            if any(type(value) is type(one) and value == one for one in get_args(choice)):
                return
            allowed += [json.dumps(one) for one in get_args(choice)]
        elif choice is types.NoneType:
            if value is None:
                return
            allowed.append("null")
        else:
            least = field.metadata.get("minimum", 0)
            most = field.metadata.get("maximum", 2**63 - 1)
            if choice is int and type(value) is int and least <= value <= most:
                return
            pattern = field.metadata.get("pattern")
            if choice is not int and type(value) is choice:
                if pattern is None or re.fullmatch(pattern, str(value)):
                    return
                allowed.append(pattern)
                continue
            allowed.append(f"{least} to {most}" if choice is int else f"a {choice.__name__}")
    found = json.dumps(value, default=str)
    raise ProfileError("E401", f"{found[:60]} is not allowed: {', '.join(allowed)}", place)

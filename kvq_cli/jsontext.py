"""jsontext: JSON read strictly and written canonically.

Spec: formats/README.md, section "JSON".

Reading refuses what json.loads lets through: duplicate keys, NaN and infinities, numbers
that overflow, byte order marks, lone surrogates, deep nesting. Every refusal names a JSON
pointer (RFC 6901). Writing sorts keys and uses no space: one value, one text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

from kvq_cli.errors import ProfileError

MAX_DEPTH: Final = 32
MAX_DIGITS: Final = 40  # u64 has 20; anything longer is an attack on int()

_DEEP: Final = f"nested deeper than {MAX_DEPTH}"
# A string, ended or not, or what is no bracket; possessive, so that no text makes it slow.
_NO_BRACKET: Final = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+"?|[^\[\]{}"]++', re.DOTALL)


class _RefusalError(ValueError):
    pass


def pointer(parent: str, key: str | int) -> str:
    """The JSON pointer of a member of `parent`."""
    return f"{parent}/{str(key).replace('~', '~0').replace('/', '~1')}"


def loads(data: bytes, *, limit: int) -> Any:
    """The JSON value in `data`; ProfileError where it is not strict or beyond `limit` bytes."""
    if len(data) > limit:
        raise ProfileError("E404", f"JSON of {len(data)} bytes, at most {limit} are allowed")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ProfileError("E401", f"not UTF-8 at byte {error.start}") from error
    try:
        _check_depth(text)
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_finite,
        )
        # Lone surrogates come from \u escapes and cannot be written back as UTF-8.
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except _RefusalError as refusal:
        raise ProfileError("E401", str(refusal)) from refusal
    except UnicodeEncodeError as error:
        raise ProfileError("E401", "a string holds half a surrogate pair") from error
    except RecursionError as error:
        raise ProfileError("E401", _DEEP) from error
    except ValueError as error:
        raise ProfileError("E401", f"not JSON: {error}") from error
    return value


def canonical(value: Any) -> str:
    """Compact JSON with sorted keys; equal values give equal text."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
    )


def _check_depth(text: str) -> None:
    """Refuse what is nested too deep; brackets that do not match are left to the parser."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    left = _NO_BRACKET.sub("", text)
    for _ in range(MAX_DEPTH):
        before = len(left)
        left = left.replace("[]", "").replace("{}", "")  # a level, of millions of brackets at once
        if len(left) == before:
            return
    if left:
        raise _RefusalError(_DEEP)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        # Each key that comes first leaves `members`; the first that is gone comes again.
        key = next(key for key, _ in pairs if members.pop(key, members) is members)
        raise _RefusalError(f"duplicate key {json.dumps(key)}")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _RefusalError(f"{name} is not JSON")


def _integer(digits: str) -> int | float:
    if digits == "-0":
        return -0.0  # as other readers do: an integer has no negative zero
    if len(digits) > MAX_DIGITS:
        raise _RefusalError(f"a number of {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _RefusalError(f"{digits[:24]} is beyond float64")
    return number

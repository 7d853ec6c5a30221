"""builtin: profiles that kvq brings, and profiles from files.

Spec: formats/profile.md, section "Built-in profiles".

An argument that contains a path separator or ends in .json is a path; any other is the
name of a built-in profile, or an alias: case and the choice of - or _ do not matter. A file
may hold either of two kinds, told apart by its marker:

    "schema": "kvq_profile_v1"                                  Profile
    "schema_version": "fib_quant_kv_compression_profile_v1"     KvCompressionProfileV1
"""

from __future__ import annotations

import difflib
import os
import types
from pathlib import Path
from typing import Any, Final

from kvq_cli import jsontext
from kvq_cli.contract.fields import Fields
from kvq_cli.contract.kv_profile import KvCompressionProfileV1
from kvq_cli.contract.objects import ContractObject, read_object
from kvq_cli.errors import FileError, ProfileError, UsageError
from kvq_cli.profile import calibration
from kvq_cli.profile.calibration import Calibration
from kvq_cli.profile.model import SCHEMA, Budget, Profile
from kvq_cli.profile.parse import parse_profile, read_budget

FOLDER: Final = Path(__file__).parent.parent / "profiles"
MAX_BYTES: Final = 1 << 20
SUFFIX: Final = ".json"
ALIASES: Final = types.MappingProxyType({"none": "raw", "fp8": "fp8-e4m3"})


def builtin_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}")))


def load_profile(source: str | Path) -> Profile | KvCompressionProfileV1:
    """A built-in profile by name, or the profile in a file."""
    return _as_profile(load_object(source))


def read_profile(data: bytes) -> Profile | KvCompressionProfileV1:
    """The profile of either kind in the bytes of a JSON file."""
    return _as_profile(read_any(data))


def load_object(source: str | Path) -> Profile | Calibration | ContractObject:
    """A built-in profile, or the profile, calibration or object of the contract in a file."""
    if isinstance(source, Path) or _is_path(source):
        return read_any(_read(Path(source)))
    return read_any(_read(FOLDER / f"{_name(source)}{SUFFIX}"))


def load_budget(source: str | Path) -> Budget:
    """The budget in a file: its members alone, or a profile that has one."""
    data = _read(Path(source))
    told = jsontext.loads(data, limit=MAX_BYTES)
    if isinstance(told, dict) and {"schema", "schema_version"}.isdisjoint(told):
        budget = read_budget(Fields(told))
    else:
        profile = read_any(data)
        budget = profile.budget if isinstance(profile, Profile) else None
    if budget is None:
        raise ProfileError("E401", f"{source}: no bound of a quality budget")
    return budget


def _name(asked: str) -> str:
    """The name of the built-in profile that is meant; UsageError if there is none."""
    names = builtin_names()
    plain = asked.lower().replace("_", "-")
    plain = ALIASES.get(plain, plain)
    if plain in names:
        return plain
    known = [*names, *ALIASES]
    near = difflib.get_close_matches(plain, known, n=1) or [
        name for name in known if plain and name.startswith(plain)
    ]
    hint = f'did you mean "{near[0]}"? ' if near else ""
    short = ", ".join(f"{alias} is {name}" for alias, name in ALIASES.items())
    found = f'no built-in profile "{asked}"; {hint}available: {", ".join(names)}; {short}'
    raise UsageError("E102", found)


def load_calibration(source: str | Path) -> Calibration:
    """The calibration in a file."""
    found = read_any(_read(Path(source)))
    if not isinstance(found, Calibration):
        raise ProfileError("E401", f"{source} is no {calibration.SCHEMA}")
    return found


def read_any(data: bytes) -> Profile | Calibration | ContractObject:
    """What the bytes of a JSON file hold, by its schema marker."""
    value: Any = jsontext.loads(data, limit=MAX_BYTES)
    if isinstance(value, dict) and value.get("schema") == calibration.SCHEMA:
        return Calibration.from_json(value)
    if isinstance(value, dict) and "schema" not in value:
        if "schema_version" not in value:
            found = f'neither "schema": "{SCHEMA}" nor "schema_version" is there'
            raise ProfileError("E401", found)
        return read_object(value)
    return parse_profile(value)


def _as_profile(found: Profile | Calibration | ContractObject) -> Profile | KvCompressionProfileV1:
    if isinstance(found, Profile | KvCompressionProfileV1):
        return found
    if isinstance(found, Calibration):
        raise ProfileError("E401", f"a {calibration.SCHEMA} is no profile", "/schema")
    raise ProfileError("E401", f"a {found.schema_version} is no profile", "/schema_version")


def _is_path(source: str) -> bool:
    separators = [os.sep, os.altsep] if os.altsep else [os.sep]
    return source.endswith(SUFFIX) or any(separator in source for separator in separators)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError as error:
        raise FileError("E601", f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # a zero byte in the name
        raise FileError("E601", f"{str(path)!r}: {error}") from error

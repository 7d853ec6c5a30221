"""record: frozen dataclasses with slots, made in a quarter of the time.

    @record                  as @dataclass(frozen=True, slots=True): the same fields, errors,
                             pattern matching and pickling, and `replace` takes it
    @record(eq=False)        compared by identity
    @record(order=True)      ordered field by field
    @record(kw_only=True)    as for a dataclass

A dataclass compiles up to nine methods of its own. There are a hundred classes, and together
they took a quarter of a command's start (docs/adr/0018-records.md). A record compiles its
`__init__` alone; what else it does is the same for all, and stands here once.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform, overload

Kind = TypeVar("Kind", bound=type)


@overload
def record(kind: Kind, /) -> Kind: ...
@overload
def record(
    *, eq: bool = True, order: bool = False, kw_only: bool = False
) -> Callable[[Kind], Kind]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(
    kind: Any = None, /, *, eq: bool = True, order: bool = False, kw_only: bool = False
) -> Any:
    """The class as a record."""
    if kind is None:
        return functools.partial(_record, eq=eq, order=order, kw_only=kw_only)
    return _record(kind, eq=eq, order=order, kw_only=kw_only)


def _record(kind: Any, *, eq: bool, order: bool, kw_only: bool) -> Any:
    made: Any = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(kind)
    made.__init__ = _initializer(made)
    names = [each.name for each in fields(made) if each.compare]
    made._compared = operator.attrgetter(*names) if names else staticmethod(_nothing)  # noqa: SLF001
    for shared in (_Frozen, *([_Equal] if eq else []), *([_Ordered] if order else [])):
        for name, method in vars(shared).items():
            if callable(method) and name not in vars(kind):
                setattr(made, name, method)
    return made


def _initializer(kind: Any) -> Any:
    """`__init__`, which sets slots past the `__setattr__` that refuses."""
    names: dict[str, Any] = {"MISSING": MISSING}
    ordered, keyword = ["self"], ["*"]
    body: list[str] = []
    for each in fields(kind):
        names[f"set_{each.name}"] = getattr(kind, each.name).__set__
        if not each.init:
            continue
        (keyword if each.kw_only else ordered).append(_parameter(each, names))
        value = each.name
        if each.default_factory is not MISSING:
            value = f"default_{value}() if {value} is MISSING else {value}"
        body.append(f"set_{each.name}(self, {value})")
    if hasattr(kind, "__post_init__"):
        body.append("self.__post_init__()")
    parameters = ", ".join(ordered + keyword * (len(keyword) > 1))
    text = "\n ".join([f"def __init__({parameters}):", *(body or ["pass"])])
    exec(text, names)  # noqa: S102 - of names in our own source, as a dataclass does
    return names["__init__"]


def _parameter(each: Field[Any], names: dict[str, Any]) -> str:
    default = f"default_{each.name}"
    if each.default_factory is not MISSING:
        names[default] = each.default_factory
        return f"{each.name}=MISSING"
    if each.default is MISSING:
        return each.name
    names[default] = each.default
    return f"{each.name}={default}"


def _nothing(_: Any) -> tuple[()]:
    """What a record without fields is compared by."""
    return ()


class _Frozen:
    def __repr__(self) -> str:
        shown = (each.name for each in fields(self) if each.repr)  # type: ignore[arg-type]
        members = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
        return f"{type(self).__qualname__}({members})"

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __setstate__(self, state: tuple[None, dict[str, object]]) -> None:
        for name, value in state[1].items():
            object.__setattr__(self, name, value)


class _Equal:
    _compared: Callable[[object], Any]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._compared(self) == self._compared(other))

    def __hash__(self) -> int:
        return hash(self._compared(self))


class _Ordered:
    _compared: Callable[[object], Any]

    def __lt__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._compared(self) < self._compared(other))

    def __le__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return bool(self._compared(self) <= self._compared(other))

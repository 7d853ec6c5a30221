"""patches: JSON Patch (RFC 6902), as far as vectors use it: add, replace and remove."""

from __future__ import annotations

import copy
from typing import Any


def patched(value: Any, patch: list[dict[str, Any]]) -> Any:
    """A copy of the value after the steps of the patch."""
    whole: Any = {"": copy.deepcopy(value)}
    for step in patch:
        *way, last = (each.replace("~1", "/").replace("~0", "~") for each in _steps(step["path"]))
        inner = whole
        for key in way:
            inner = inner[int(key)] if isinstance(inner, list) else inner[key]
        if step["op"] == "remove":
            del inner[last]
        elif isinstance(inner, list) and step["op"] == "add":
            inner.insert(len(inner) if last == "-" else int(last), step["value"])
        else:
            assert isinstance(inner, list) or step["op"] == "add" or last in inner
            inner[int(last) if isinstance(inner, list) else last] = step["value"]
    return whole[""]


def _steps(pointer: str) -> list[str]:
    return ["", *pointer.split("/")[1:]]

"""vectors: what seeds are made of: formats/vectors, valid and not."""

from __future__ import annotations

import base64
import copy
import json
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
VECTORS: Final = ROOT / "formats" / "vectors"
TESTS: Final = str(ROOT / "tests")


def load(name: str) -> Any:
    return json.loads((VECTORS / f"{name}.json").read_text("utf-8"))


LOSS: Final[dict[str, Any]] = {
    "header_digest": "blake3:" + "0" * 64, "content_root": None,
    "files": [], "tables": [], "tensors": [],
}  # fmt: skip


@cache
def containers() -> tuple[tuple[str, bytes], ...]:
    """The valid containers, by name, and a partial one that lacks a page."""
    names = sorted(path.stem for path in (VECTORS / "container" / "valid").glob("*.json"))
    whole = {name: base64.b64decode(load(f"container/valid/{name}")["container"]) for name in names}
    partial: list[dict[str, Any]] = [
        {"set": "/preamble/incompatible", "to": 1},
        {"set": "/header/content/partial", "to": LOSS},
        {"drop": "/chunks/1"},
    ]
    return (*whole.items(), ("partial", operate(whole["all-layers"], partial)))


def operate(data: bytes, edits: list[dict[str, Any]]) -> bytes:
    if TESTS not in sys.path:
        sys.path.append(TESTS)
    made: bytes = import_module("support.surgery").operate(data, edits)
    return made


def edited(*files: str) -> Iterator[tuple[str, bytes]]:
    """The containers of files of invalid/, or of "unusual"."""
    bases = dict(containers())
    for file in files:
        path = file if file == "unusual" else f"invalid/{file}"
        for case in load(f"container/{path}")["cases"]:
            yield f"{path} {case['id']}", operate(bases[case["base"]], case["edits"])


def cases(name: str, member: str) -> Iterator[tuple[str, Any]]:
    """Valid values, and those that patches make of a base."""
    for case in load(f"{name}/valid")["cases"]:
        yield f"{name} {case['id']}", case[member]
    invalid = load(f"{name}/invalid")
    for case in invalid["cases"]:
        if "patch" in case:
            yield f"{name} {case['id']}", patched(invalid["base"], case["patch"])


def patched(value: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, as far as the vectors use it: add, remove, replace."""
    whole: Any = {"": copy.deepcopy(value)}
    for edit in patch:
        *way, last = (
            step.replace("~1", "/").replace("~0", "~") for step in edit["path"].split("/")
        )
        place = whole
        for step in way:
            place = place[int(step) if isinstance(place, list) else step]
        change(place, last, edit)
    return whole[""]


def change(place: Any, last: str, edit: dict[str, Any]) -> None:
    if isinstance(place, list):
        at = len(place) if last == "-" else int(last)
        new = [] if edit["op"] == "remove" else [copy.deepcopy(edit["value"])]
        place[at : at + (edit["op"] != "add")] = new
    elif edit["op"] == "remove":
        del place[last]
    else:
        place[last] = copy.deepcopy(edit["value"])

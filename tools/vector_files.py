"""vector_files: files of cases that a reader takes and refuses, written or compared by a tool."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kvq_cli.errors import MEANINGS


def exit_code(error: str) -> int:
    """What a command ends with that is refused with this id."""
    return MEANINGS[error][0]


class Refusals:
    """Cases that a reader refuses, numbered as they come."""

    def __init__(self) -> None:
        self.cases: list[dict[str, Any]] = []

    def add(self, words: str, error: str, pointer: str | None, **case: Any) -> None:
        number = {"id": f"{len(self.cases) + 1:03} {words}"}
        told = {"error": error, "exit": exit_code(error), "pointer": pointer}
        self.cases.append(number | case | told)

    def add_patches(
        self,
        tables: Mapping[str | None, Iterable[tuple[str, Any, str, str | None]]],
        removed: Iterable[tuple[str, str]],
    ) -> None:
        """Patches of a base: a value put somewhere, by what a schema makes of it, or taken away."""
        for schema, table in tables.items():
            for path, value, error, pointer in table:
                op = "replace" if path.rsplit("/", 1)[1].isdigit() else "add"
                told = {"patch": [{"op": op, "path": path, "value": value}]}
                told |= {"schema": schema} if schema else {}
                self.add(path, error, path if pointer is None else pointer, **told)
        for path, pointer in removed:
            patch = [{"op": "remove", "path": path}]
            self.add(f"without {path}", "E401", pointer, patch=patch, schema="refuses")


def text(vectors: Mapping[str, Any]) -> str:
    """One case a line, so that a changed case is a changed line."""
    *head, cases = vectors.items()
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head]
    body = ",\n".join(json.dumps(case) for case in cases[1])
    return "{" + ",\n".join([*lines, f'"cases": [\n{body}\n]']) + "}\n"


def run(about: str, tool: str, target: Path, files: Mapping[str, Mapping[str, Any]]) -> int:
    """What `python tools/TOOL` does, with --check or without."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    wrong = 0
    for name, vectors in files.items():
        path = target / f"{name}.json"
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(vectors), encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text(vectors):
            print(f"{path.name} is not what {tool} writes")
            wrong = 1
    return wrong

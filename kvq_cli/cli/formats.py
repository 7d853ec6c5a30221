"""formats: results of verify as continuous integration systems take them.

    junit     one XML document: a test case for each file, a failure for each thing that is wrong
    github    a workflow command for each thing that is wrong, which marks the file

Text from files is escaped as each format asks; neither can be made to say anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any
from xml.sax.saxutils import quoteattr

from kvq_cli.cli import render


class Format(StrEnum):
    """What --format takes."""

    TEXT = "text"
    JUNIT = "junit"
    GITHUB = "github"


def written(results: Sequence[Mapping[str, Any]], form: Format) -> None:
    """All results, on standard output."""
    for line in _junit(results) if form is Format.JUNIT else _github(results):
        print(line)


def _wrong(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Id and message of all that is wrong with a file, on one line each."""
    found = [result["error"]] if "error" in result else result["broken"]
    return [(f"KVQ-{each['error_id']}", render.safe(each["message"])) for each in found]


def _junit(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    failed = sum("error" not in result and bool(result["broken"]) for result in results)
    errors = sum("error" in result for result in results)
    counts = f'tests="{len(results)}" failures="{failed}" errors="{errors}"'
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield f'<testsuite name="kvq verify" {counts}>'
    for result in results:
        kind = "error" if "error" in result else "failure"
        yield f'  <testcase classname="kvq.verify" name={_quoted(result["path"])}>'
        for error_id, message in _wrong(result):
            yield f"    <{kind} type={_quoted(error_id)} message={_quoted(message)}/>"
        yield "  </testcase>"
    yield "</testsuite>"


def _quoted(text: str) -> str:
    """An attribute; what XML 1.0 cannot hold was escaped before."""
    return quoteattr(render.safe(text))


def _github(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for result in results:
        for error_id, message in _wrong(result):
            place = _escaped(render.safe(result["path"])).replace(":", "%3A").replace(",", "%2C")
            yield f"::error file={place},title={error_id}::{_escaped(message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")

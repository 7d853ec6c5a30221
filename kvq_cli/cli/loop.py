"""loop: a command over many inputs: one that fails does not stop the rest.

Every failure is one line on standard error with an error id; the largest exit code wins.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from kvq_cli import __version__
from kvq_cli.cli import render
from kvq_cli.cli.options import Common
from kvq_cli.errors import BROKEN_PIPE, INTERRUPTED, MEANINGS, KvqError, reason

REPORT_SCHEMA = "kvq_report_v1"


class Report(Protocol):
    """What a story returns."""

    def to_json(self) -> dict[str, Any]:
        """Its members."""
        ...


def each_input(
    names: Iterable[str],
    story: Callable[[str], Report],
    common: Common,
    *,
    human: Callable[[Mapping[str, Any]], None],
    data_on_stdout: bool = False,
    silent: bool = False,
    finish: Callable[[list[dict[str, Any]]], None] | None = None,
) -> int:
    """Run `story` on every input, report, and give the exit code.

    `finish` is given all results at the end, and then `human` none.
    """
    worst = 0
    failed = 0
    results = []
    stream = sys.stderr if data_on_stdout else sys.stdout
    for name in names:
        result = _told(name, story, common, silent=silent)
        broken = result.get("broken") or []
        for each in broken if not silent else ():
            complain(each["error_id"], f"{name}: {each['message']}")
        code = result["error"]["exit_code"] if "error" in result else int(bool(broken))
        failed += bool(code)
        worst = max(worst, code)
        results.append(result)
        if common.ndjson:
            render.line(result, stream)
        elif not (common.json or finish or "error" in result or common.quiet):
            human(result)
        if code and common.fail_fast:
            break
    if common.json:
        render.line(_whole(common, results, failed, worst), stream)
    elif finish:
        finish(results)
    return worst


def _told(
    name: str, story: Callable[[str], Report], common: Common, *, silent: bool
) -> dict[str, Any]:
    """What the story tells of an input, or how it failed."""
    begin = time.monotonic()
    try:
        result = story(name).to_json()
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the other inputs are still to be done
        render.end_progress(common, begin)
        return {"path": name, "error": failure(error, name, silent=silent)}
    render.end_progress(common, begin)
    return result


def failure(error: BaseException, name: str | None, *, silent: bool = False) -> dict[str, Any]:
    """Print the one line of an error; its members for a report."""
    error_id, message = explain(error)
    if not silent:
        who = "standard input" if name == "-" else name
        named = who is None or message.startswith(f"{who}: ")
        complain(error_id, message if named else f"{who}: {message}")
    if os.environ.get("KVQ_DEBUG"):
        traceback.print_exception(error)
    return {"error_id": error_id, "exit_code": exit_code(error), "message": message}


def explain(error: BaseException) -> tuple[str, str]:
    if isinstance(error, KvqError):
        return error.error_id, str(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return "E601", where + reason(error)
    if isinstance(error, MemoryError):
        return "E701", "out of memory"
    return "E999", f"a bug in kvq: {type(error).__name__}: {error}"


def exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return BROKEN_PIPE
    return MEANINGS[explain(error)[0]][0]


def complain(error_id: str, message: str) -> None:
    """One line, whatever names and metadata hold."""
    print(f"kvq: error KVQ-{error_id}: {render.safe(message)}", file=sys.stderr)


def _whole(
    common: Common, results: list[dict[str, Any]], failed: int, worst: int
) -> dict[str, Any]:
    return {
        "schema": REPORT_SCHEMA,
        "kvq_version": __version__,
        "command": common.command,
        "results": results,
        "summary": {"inputs": len(results), "failed": failed, "exit_code": worst},
    }

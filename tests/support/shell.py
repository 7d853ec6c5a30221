"""shell: the command line run as a user runs it, in this process or in one of its own.

kvq("verify", path)                 in-process: exit code, stdout, stderr as text
process("compress", "-", stdin=b)   a process: exit code, stdout as bytes, stderr as text
refused(ran, 3, "E201", "x.st")     one line, that error id, that exit code, those words
left_alone(folder)                  asserts that a block creates, changes and removes nothing
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvq_cli.cli.run import run

ERROR = re.compile(r"kvq: error KVQ-(E\d{3}): (.+)")
COMMAND = [sys.executable, "-m", "kvq_cli"]


@dataclass(frozen=True)
class Ran:
    code: int
    out: Any
    err: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def result(self) -> dict[str, Any]:
        """The one result of a --json report."""
        (result,) = self.report["results"]
        return result


def kvq(*arguments: object) -> Ran:
    """A command in this process; what needs real descriptors needs `process`."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(each) for each in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> Ran:
    """A command that must succeed."""
    ran = kvq(*arguments)
    assert ran.code == 0, ran.err
    return ran


def environment(**changes: str) -> dict[str, str]:
    plain = {key: text for key, text in os.environ.items() if not key.startswith("KVQ_")}
    return {**plain, **changes}


def process(
    *arguments: object, stdin: Any = b"", env: Mapping[str, str] | None = None, **options: Any
) -> Ran:
    """A command in a process of its own; stdin is bytes for a pipe, or an open file."""
    given = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
    ran = subprocess.run(
        [*COMMAND, *(str(each) for each in arguments)],
        capture_output=True,
        check=False,
        timeout=60,
        env=environment(**(env or {})),
        **given,
        **options,
    )
    return Ran(ran.returncode, ran.stdout, ran.stderr.decode())


def error_line(ran: Ran) -> tuple[str, str]:
    """Error id and message of the only line on standard error."""
    lines = ran.err.splitlines()
    assert len(lines) == 1, ran.err
    match = ERROR.fullmatch(lines[0])
    assert match, ran.err
    return match[1], match[2]


def refused(ran: Ran, code: int, error_id: str, *words: str) -> str:
    """One line with this id and these words, this exit code, nothing on standard output."""
    found, message = error_line(ran)
    assert (ran.code, found) == (code, error_id), message
    assert not ran.out
    for word in words:
        assert word.lower() in message.lower()
    return message


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every path in a folder, and the bytes of regular files."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@contextlib.contextmanager
def left_alone(folder: Path) -> Iterator[None]:
    before = listing(folder)
    yield
    assert listing(folder) == before

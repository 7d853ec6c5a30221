"""running: a mutant, and the tests that reach its line, in a forked process.

One process collects an area's tests, runs them once to see which lines each reaches, and then
forks for every mutant: the child gives the function its mutated code and runs those tests,
first those that have noticed most, then the quickest, up to the first that fails. What runs
when a module is imported (constants, defaults, classes) is mutated in a process that has not
imported kvq yet.
"""

from __future__ import annotations

import functools
import gc
import importlib.abc
import importlib.util
import json
import os
import resource
import select
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, Final, NoReturn, TypeAlias

import blake3  # noqa: F401 - what takes long to import is here before the forks
import numpy as np  # noqa: F401
import pytest
import safetensors  # noqa: F401
import zstandard  # noqa: F401
from _pytest.runner import runtestprotocol
from hypothesis import Phase, settings

from mutating.mutants import Mutant, compiled
from mutating.scope import file_of, name_of

SURVIVED: Final = "survived"
KILLED: Final = "killed"
TIMEOUT: Final = "timeout"
ERROR: Final = "error"
# Of processor time, so that a busy machine finds the same.
LEAST_SECONDS: Final = 2.0  # a test may take, and twenty times what it took without a mutant
TESTED_SECONDS: Final = 10.0  # that a mutant's tests take without it; slower ones are left out
MOST_SECONDS: Final = 300.0  # a mutant may take by the clock
MEMORY: Final = 4 << 30
Outcome: TypeAlias = tuple[str, str]  # and the test that noticed
Report: TypeAlias = Callable[[str, str], None]
Functions: TypeAlias = dict[tuple[str, int], list[FunctionType]]

PROFILE: Final = settings(
    phases=[Phase.explicit, Phase.generate], deadline=None, derandomize=True, database=None
)
OPTIONS: Final = (
    *("-q", "-m", "not long", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # hypothesis is here before pytest
)


@dataclass
class Recorded:
    """Which tests reach which lines of which modules, and how long they take."""

    reached: dict[str, dict[int, list[str]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)

    def order(self, module: str, mutant: Mutant) -> list[str]:
        """The tests that may notice; for what runs on import, all that reach the module."""
        lines = self.reached.get(module, {})
        first, last = mutant.lines
        wanted = lines if mutant.function is None else range(first, last + 1)
        found = {test for line in wanted for test in lines.get(line, ())}
        quick, spent = [], 0.0
        for test in sorted(found, key=lambda test: (self.seconds[test], test)):
            spent += self.seconds[test]
            if spent > TESTED_SECONDS:
                break
            quick.append(test)
        place = f"{module} {mutant.where}\0"
        return sorted(quick, key=lambda test: (-self.kills[place + test], self.seconds[test]))

    def note(self, module: str, mutant: Mutant, outcome: str, test: str) -> None:
        if outcome != SURVIVED:
            self.kills[f"{module} {mutant.where}\0{test}"] += 1
            self.kills[f"{module}\0{test}"] += 1


class LateError(BaseException):
    """A test takes much longer than it did."""


def outcomes(
    tests: Sequence[str], chosen: dict[str, list[Mutant]], tell: Callable[[str], None]
) -> tuple[dict[str, list[Outcome]], dict[str, float]]:
    """What became of every mutant, and the seconds that those of each module took."""
    settings.register_profile("mutating", PROFILE)
    settings.load_profile("mutating")
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        _in_fork(lambda _: _session(tests, _Warm(chosen, answer, tell)), None)
        told = json.loads(answer.read_text())
    reached = {
        module: {int(line): names for line, names in lines.items()}
        for module, lines in told["reached"].items()
    }
    recorded = Recorded(reached, told["seconds"], Counter(told["kills"]))
    found, spent = told["outcomes"], told["spent"]
    for module, mutants in chosen.items():
        began = time.monotonic()
        for at, mutant in enumerate(mutants):
            if mutant.function is None:
                found[module][at] = _cold(module, mutant, recorded)
                tell(f"{module} {at + 1}/{len(mutants)} {found[module][at][0]}")
        spent[module] += time.monotonic() - began
    return {
        module: [(each[0], each[1]) for each in pairs] for module, pairs in found.items()
    }, spent


def _session(tests: Sequence[str], plugin: object) -> NoReturn:
    with tempfile.TemporaryDirectory() as folder:
        pytest.main([*OPTIONS, f"--basetemp={folder}/base", *tests], plugins=[plugin])
    os._exit(0)


class _Warm:
    """Records, and then goes through the mutants of functions."""

    def __init__(
        self, chosen: dict[str, list[Mutant]], answer: Path, tell: Callable[[str], None]
    ) -> None:
        self._chosen, self._answer, self._tell = chosen, answer, tell

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        recorded = _record(session.items, self._chosen)
        self._tell(f"{len(items)} tests take {sum(recorded.seconds.values()):.0f} s")
        for each in gc.get_objects():
            if isinstance(each, functools._lru_cache_wrapper):  # noqa: SLF001
                each.cache_clear()
        gc.collect()
        found: dict[str, list[Outcome]] = {}
        spent: dict[str, float] = {}
        for module, mutants in self._chosen.items():
            functions = functions_of(module)
            found[module] = []
            began = time.monotonic()
            for at, mutant in enumerate(mutants):
                outcome = (SURVIVED, "")
                if mutant.function is not None:
                    order = recorded.order(module, mutant)
                    wanted = [items[each] for each in order]
                    outcome = _warm(module, mutant, functions, wanted, recorded.seconds)
                    recorded.note(module, mutant, *outcome)
                    self._tell(f"{module} {at + 1}/{len(mutants)} {outcome[0]}")
                found[module].append(outcome)
            spent[module] = time.monotonic() - began
        told = {
            "reached": recorded.reached,
            "seconds": recorded.seconds,
            "outcomes": found,
            "spent": spent,
            "kills": recorded.kills,
        }
        self._answer.write_text(json.dumps(told))
        return True


def _warm(
    module: str, mutant: Mutant, functions: Functions, items: list[Any], seconds: dict[str, float]
) -> Outcome:
    def child(report: Report) -> None:
        install(module, mutant, functions)
        run(items, seconds, report)

    return _in_fork(child, MOST_SECONDS) if items else (SURVIVED, "")


class _Cold:
    """Runs the tests of a given order and reports."""

    def __init__(self, order: Sequence[str], seconds: dict[str, float], report: Report) -> None:
        self._order, self._seconds, self._report = order, seconds, report

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        if session.testsfailed or not items.keys() >= {*self._order}:
            self._report(KILLED, "collection")
        else:
            run([items[each] for each in self._order], self._seconds, self._report)
        os._exit(0)


def _cold(module: str, mutant: Mutant, recorded: Recorded) -> Outcome:
    """File by file, first those whose tests have noticed most of this module's mutants."""
    order = recorded.order(module, mutant)
    files: dict[str, list[str]] = {}
    for test in order:
        files.setdefault(test.partition("::")[0], []).append(test)
    kills = {
        file: sum(recorded.kills[f"{module}\0{test}"] for test in tests)
        for file, tests in files.items()
    }
    outcome: Outcome = (SURVIVED, "")
    for file in sorted(files, key=lambda file: -kills[file]):
        outcome = _in_fork(_imported(module, mutant, files[file], recorded.seconds), MOST_SECONDS)
        if outcome[0] != SURVIVED:
            break
    recorded.note(module, mutant, *outcome)
    return outcome


def _imported(
    module: str, mutant: Mutant, tests: list[str], seconds: dict[str, float]
) -> Callable[[Report], None]:
    """A child that imports the module with its fault, and runs tests of one file."""

    def child(report: Report) -> None:
        code = compiled(mutant, str(file_of(module)))
        sys.meta_path.insert(0, _Finder(name_of(module), file_of(module), code))
        _session(sorted({test.partition("::")[0] for test in tests}), _Cold(tests, seconds, report))

    return child


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module other code."""

    def __init__(self, name: str, file: Path, code: CodeType) -> None:
        self._name, self._file, self._code = name, file, code

    def find_spec(self, name: str, *_: object) -> Any:
        if name != self._name:
            return None
        return importlib.util.spec_from_file_location(name, self._file, loader=self)

    def exec_module(self, module: Any) -> None:
        exec(self._code, module.__dict__)  # noqa: S102 - our own module, with a fault


def functions_of(module: str) -> Functions:
    """The functions of a module that are in use, by name and first line."""
    filename = sys.modules[name_of(module)].__file__
    found: Functions = defaultdict(list)
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == filename:
            found[each.__code__.co_qualname, each.__code__.co_firstlineno].append(each)
    return found


def install(module: str, mutant: Mutant, functions: Functions) -> None:
    """Give a function that is in use its mutated code."""
    code = compiled(mutant, sys.modules[name_of(module)].__file__ or "")
    assert mutant.function is not None
    found = functions.get(mutant.function)
    if not found:
        raise LookupError(f"nobody has the function {mutant.function} of {module}")
    for each in found:
        each.__code__ = _code_of(code, mutant.function)


def _code_of(code: CodeType, function: tuple[str, int] | None) -> CodeType:
    for each in code.co_consts:
        if isinstance(each, CodeType):
            if (each.co_qualname, each.co_firstlineno) == function:
                return each
            if function and function[0].startswith(f"{each.co_qualname}."):
                return _code_of(each, function)
    raise LookupError(f"no code of {function}")


def run(items: Sequence[Any], seconds: dict[str, float], report: Report) -> None:
    """Tests one after the other, up to the first that fails or takes too long."""
    late = []
    if items:  # temporary folders of a child lie in its own, which is gone with it
        factory = items[0].config._tmp_path_factory  # noqa: SLF001
        factory._given_basetemp, factory._basetemp = Path(tempfile.gettempdir()) / "base", None  # noqa: SLF001

    def ring(_: int, frame: FrameType | None) -> None:
        late.append(frame)
        raise LateError

    signal.signal(signal.SIGPROF, ring)
    for item, following in zip(items, [*items[1:], None], strict=True):
        limit = max(LEAST_SECONDS, 20 * seconds[item.nodeid])
        signal.setitimer(signal.ITIMER_PROF, limit)
        try:
            reports = runtestprotocol(item, log=False, nextitem=following)
        except BaseException:  # noqa: BLE001 - whatever a mutant does to pytest, it was noticed
            report(TIMEOUT if late else KILLED, item.nodeid)
            return
        signal.setitimer(signal.ITIMER_PROF, 0)
        if any(each.failed for each in reports):
            report(TIMEOUT if late else KILLED, item.nodeid)
            return
    report(SURVIVED, "")


def _record(items: Iterable[Any], modules: Iterable[str]) -> Recorded:
    """Run each test once, and see which lines of the modules it reaches."""
    files = {str(file_of(module)): module for module in modules}
    reached: dict[str, dict[int, list[str]]] = {module: defaultdict(list) for module in modules}
    recorded = Recorded(reached)
    lines: set[tuple[str, int]] = set()

    def local(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def called(frame: FrameType, _: str, __: object) -> Any:
        return local if frame.f_code.co_filename in files else None

    ordered = list(items)
    for item, following in zip(ordered, [*ordered[1:], None], strict=True):
        lines.clear()
        began = time.process_time()
        threading.settrace(called)
        sys.settrace(called)
        reports = runtestprotocol(item, log=False, nextitem=following)
        sys.settrace(None)
        threading.settrace(None)
        if any(each.failed for each in reports):
            raise pytest.UsageError(f"{item.nodeid} fails without a mutant")
        recorded.seconds[item.nodeid] = time.process_time() - began
        for file, line in lines:
            reached[files[file]][line].append(item.nodeid)
    return recorded


def _in_fork(child: Callable[[Report], None], limit: float | None) -> Outcome:
    """What a forked child reports; killed where it dies, and timeout where it does not end."""
    reader, writer = os.pipe()
    temporary = tempfile.mkdtemp()
    pid = os.fork()
    if pid == 0:
        _child(child, writer, temporary)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], limit)
    said = os.read(reader, 1 << 16).decode() if ready else TIMEOUT
    os.close(reader)
    if said or not ready:
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    shutil.rmtree(temporary, ignore_errors=True)
    outcome, _, test = (said or f"{KILLED}\tdied").partition("\t")
    if outcome == ERROR:
        raise RuntimeError(test)
    return outcome, test


def _child(child: Callable[[Report], None], writer: int, temporary: str) -> NoReturn:
    try:
        tempfile.tempdir = temporary
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        child(lambda outcome, test: _say(writer, outcome, test))
    except BaseException:  # noqa: BLE001 - nothing may go up into the parent's code
        _say(writer, ERROR, traceback.format_exc())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _say(writer: int, outcome: str, test: str) -> None:
    os.write(writer, f"{outcome}\t{test}".encode())

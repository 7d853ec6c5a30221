"""worker: one process of atheris: instruments kvq, runs one target, counts how inputs end.

    python -m fuzzing.worker TARGET COUNTS [libFuzzer's options and folders]

COUNTS is a file that gets the counts as JSON, every now and then.
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import atheris

from fuzzing.mutator import JsonMutator

MEMORY: Final = 3 << 30  # what wants more gets a MemoryError, which is a crash
SECOND: Final = 1.0
EVERY: Final = 1 << 13
# What every input goes through, which is not worth a branch of its own. `profile` looks at the
# parser of JSON; for the others it would be half of the time.
QUIET: Final = ["kvq_cli.record", "kvq_cli.errors", "kvq_cli.digest"]
JSON: Final = ["kvq_cli.jsontext", "kvq_cli.contract.fields"]


class SlowError(Exception):
    """An input that takes longer than a second of this thread's time."""


def counted(run: Callable[[bytes], str], path: Path) -> Callable[[bytes], None]:
    """`run` as libFuzzer calls it."""
    counts: dict[str, int] = {}
    clock = time.thread_time
    total = 0

    def one(data: bytes) -> None:
        nonlocal total
        began = clock()
        outcome = run(data)
        if clock() - began > SECOND:
            raise SlowError(outcome)
        counts[outcome] = counts.get(outcome, 0) + 1
        total += 1
        if total % EVERY == 0:
            path.write_text(json.dumps(counts))

    return one


def instrumented(name: str) -> Any:
    quiet = QUIET if name == "profile" else QUIET + JSON
    with atheris.instrument_imports(["kvq_cli"], quiet, enable_loader_override=False):
        target = import_module(f"fuzzing.targets.{name}")
    if hasattr(target, "prepare"):
        target.prepare()
    return target


def main() -> None:
    target = instrumented(sys.argv[1])
    gc.collect()
    gc.freeze()  # what was imported stays: only what inputs leave is looked through
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    # A merge starts this again in a shell, by its first argument.
    again = " ".join([sys.executable, "-m", "fuzzing.worker", *sys.argv[1:3]])
    options: dict[str, Any] = {}
    if hasattr(target, "WORDS"):
        # Fuzz() puts another Mutate into the module, so it is looked up late.
        mutate = lambda data, most: atheris.Mutate(data, most)  # noqa: E731, PLW0108
        options["custom_mutator"] = JsonMutator(target.WORDS, mutate)
    atheris.Setup([again, *sys.argv[3:]], counted(target.run, Path(sys.argv[2])), **options)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

"""The command line of fuzzing; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import fuzzing
from fuzzing import corpus, runs

SECONDS: Final = 60
LARGEST: Final = {"chunks": 4400}
USUAL: Final = 2600  # bytes of an input
INTERRUPTED: Final = 72  # libFuzzer's exit code: the run counts as far as it came
REACHED: Final = re.compile(rb"cov: (\d+) ft: (\d+) corp: (\d+)/")
EXECUTED: Final = re.compile(rb"stat::number_of_executed_units: (\d+)")


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="python -m fuzzing",
        description=fuzzing.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("target", nargs="*", help=f"of {', '.join(corpus.TARGETS)}; all without")
    found.add_argument("--seconds", type=int, help=f"for each target; {SECONDS} without --runs")
    found.add_argument("--runs", type=int, help="executions of each target")
    found.add_argument("--seed", type=int, help="the next one that was not run, without")
    found.add_argument("--merge", action="store_true", help="write what was found into corpus/")
    return found


def main() -> None:
    options = parser().parse_args()
    if unknown := set(options.target) - set(corpus.TARGETS):
        known = ", ".join(corpus.TARGETS)
        raise SystemExit(f"fuzzing: no target {', '.join(unknown)}; only {known}")
    try:
        version("atheris")
    except PackageNotFoundError:
        raise SystemExit("fuzzing: atheris is not installed; make fuzz sets it up") from None
    crashes = 0
    for target in options.target or corpus.TARGETS:
        if options.merge:
            print(f"{target}: {corpus.merge(target)} inputs besides the seeds", flush=True)
        else:
            run = fuzz(target, options)
            print(told(run), flush=True)
            crashes += run["crashes"]
    if crashes:
        raise SystemExit(f"fuzzing: {crashes} crashes; their inputs are in build/fuzz/artifacts")


def fuzz(target: str, options: argparse.Namespace) -> runs.Run:
    """Run one target, and record the run."""
    seed = options.seed or runs.next_seed(target)
    log, counts = (corpus.FILES / "logs" / f"{target}-{seed}.{end}" for end in ("log", "json"))
    artifacts = corpus.FILES / "artifacts"
    for folder in (log.parent, artifacts):
        folder.mkdir(parents=True, exist_ok=True)
    words = [f"-seed={seed}", f"-max_len={LARGEST.get(target, USUAL)}", "-timeout=30"]
    words += ["-print_final_stats=1", f"-artifact_prefix={artifacts}/{target}-"]
    if options.runs:
        words.append(f"-runs={options.runs}")
    if options.seconds or not options.runs:
        words.append(f"-max_total_time={options.seconds or SECONDS}")
    command = corpus.command(target, counts, [*words, str(corpus.unpack(target))])
    began = time.monotonic()
    code = finished(command, log)
    run = record(log, counts, time.monotonic() - began)
    if run["executions"] == 0:
        raise SystemExit(f"fuzzing: {target} did not run; see {log}")
    run = {"target": target, "seed": seed, **run, "crashes": int(code not in {0, INTERRUPTED})}
    runs.add(run)
    return run


def finished(command: list[str], log: Path) -> int:
    """The exit code; what interrupts this process reaches the other one too, which then ends."""
    environment = corpus.environment()
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
        try:
            return process.wait()
        except KeyboardInterrupt:
            return process.wait()


def record(log: Path, counts: Path, seconds: float) -> runs.Run:
    """What a run's log and counts say."""
    text = log.read_bytes()
    executions = int((EXECUTED.findall(text) or [0])[-1])
    edges, features, inputs = map(int, (REACHED.findall(text) or [(0, 0, 0)])[-1])
    return {
        "executions": executions,
        "seconds": round(seconds),
        "per_second": round(executions / seconds),
        "edges": edges,
        "features": features,
        "inputs": inputs,
        "outcomes": json.loads(counts.read_text("utf-8")) if counts.exists() else {},
        "crashes": 0,
        "python": platform.python_version(),
        "atheris": version("atheris"),
    }


def told(run: runs.Run) -> str:
    return (
        f"{run['target']}: {run['executions']} executions, {run['per_second']} a second, "
        f"{run['features']} features, {run['crashes']} crashes"
    )


if __name__ == "__main__":
    main()

"""The command line of mutating; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from mutating.mutants import Mutant, mutants_of
from mutating.running import SURVIVED, outcomes
from mutating.scope import AREAS, file_of

RESULTS: Final = Path(__file__).parent / "results.json"
CHOSEN: Final = Path(__file__).parent / "chosen.json"


def main() -> None:
    parser = argparse.ArgumentParser("python -m mutating", allow_abbrev=False)
    parser.add_argument("modules", nargs="*", help="modules or areas; all of them without")
    parser.add_argument("--sample", type=int, help="so many mutants, spread; nothing is written")
    parser.add_argument("--again", action="store_true", help="only those that survived before")
    parser.add_argument("--chosen", action="store_true", help="those of chosen.json, in seconds")
    parser.add_argument("--survivors", action="store_true", help="tell what results.json has")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    options = parser.parse_args()
    if options.survivors:
        told()
    elif options.chosen:
        sys.exit(chosen())
    else:
        run(wanted(options.modules), options)


def wanted(names: list[str]) -> list[str]:
    every = [module for area in AREAS.values() for module in area.modules]
    found: list[str] = []
    for name in names or AREAS:
        if name not in AREAS and name not in every:
            raise SystemExit(f"{name} is none of {', '.join([*AREAS, *every])}")
        found += AREAS[name].modules if name in AREAS else [name]
    return [module for module in every if module in found]


def run(modules: list[str], options: argparse.Namespace) -> None:
    """Area by area; results are written as soon as an area is done."""
    every = {module: mutants_of(file_of(module).read_text("utf-8")) for module in modules}
    if options.sample is not None:
        every = sampled(every, options.sample)
    for area in AREAS.values():
        mine = {module: every[module] for module in area.modules if every.get(module)}
        tried = survivors(mine) if options.again else mine
        if tried:
            found, seconds = outcomes(area.tests, tried, progress(quiet=options.quiet))
            report(tried, found)
            if options.sample is None:
                write(tried, found, seconds, again=options.again)


def survivors(every: dict[str, list[Mutant]]) -> dict[str, list[Mutant]]:
    """Those that results.json lists; of a module that has changed since, none are known."""
    modules = json.loads(RESULTS.read_text("utf-8"))["modules"]
    tried = {}
    for module, mutants in every.items():
        row = modules.get(module, {"mutants": None, "survivors": []})
        if row["mutants"] != len(mutants):
            raise SystemExit(f"{module} has changed: run it without --again")
        listed = {(each["where"], each["was"], each["now"]) for each in row["survivors"]}
        tried[module] = [each for each in mutants if each.key in listed]
    return {module: mutants for module, mutants in tried.items() if mutants}


def sampled(every: dict[str, list[Mutant]], sample: int) -> dict[str, list[Mutant]]:
    """`sample` mutants at equal distances."""
    flat = [(module, mutant) for module, mutants in every.items() for mutant in mutants]
    taken: dict[str, list[Mutant]] = {}
    for at in range(min(sample, len(flat))):
        module, mutant = flat[at * len(flat) // min(sample, len(flat))]
        taken.setdefault(module, []).append(mutant)
    return taken


def report(chosen: dict[str, list[Mutant]], found: dict[str, list[tuple[str, str]]]) -> None:
    for module, mutants in chosen.items():
        counts = Counter(outcome for outcome, _ in found[module])
        print(
            f"{module}: {len(mutants)} mutants,", ", ".join(f"{n} {k}" for k, n in counts.items())
        )
        for mutant, (outcome, _) in zip(mutants, found[module], strict=True):
            if outcome == SURVIVED:
                print(f"  {mutant.lines[0]} {mutant.where}: {mutant.was}\n      now: {mutant.now}")


def write(
    chosen: dict[str, list[Mutant]],
    found: dict[str, list[tuple[str, str]]],
    seconds: dict[str, float],
    *,
    again: bool,
) -> None:
    # Here, because it brings a part of kvq along, and mutants need a process without.
    from mutating import results

    modules = results.load()
    for module, mutants in chosen.items():
        before: dict[str, Any] = modules.get(module, {})
        row = results.result(module, mutants, found[module], seconds[module], before)
        modules[module] = results.joined(before, row) if again else row
    results.save(modules)


def chosen() -> int:
    """One mutant of every kind and most modules, and two that nobody can tell from kvq."""
    cases = json.loads(CHOSEN.read_text("utf-8"))["mutants"]
    picked: dict[str, list[Mutant]] = {}
    for case in cases:
        every = mutants_of(file_of(case["module"]).read_text("utf-8"))
        same = [each for each in every if each.key == (case["where"], case["was"], case["now"])]
        if not same:
            raise SystemExit(f"{case['module']} has no such mutant: {case['was']}")
        picked.setdefault(case["module"], []).append(same[0])
    found, _ = outcomes(sorted({case["test"] for case in cases}), picked, progress(quiet=True))
    wrong = 0
    taken = {module: iter(pairs) for module, pairs in found.items()}
    for case in cases:
        outcome, _ = next(taken[case["module"]])
        if (outcome == SURVIVED) != case.get("survives", False):
            wrong += 1
            print(f"{outcome}: {case['module']} {case['where']}: {case['now']}", file=sys.stderr)
    print(f"{len(cases) - wrong} of {len(cases)} as they should be")
    return int(wrong > 0)


def told() -> None:
    from mutating import results

    for module, row in results.load().items():
        for each in row["survivors"]:
            print(f"{module} {each['where']}: {each['was']}\n    now: {each['now']}")
            print(f"    {each['why']}")


def progress(*, quiet: bool) -> Any:
    began = time.monotonic()

    def tell(text: str) -> None:
        if not quiet:
            print(f"\r{time.monotonic() - began:6.0f} s  {text:<70}", end="", file=sys.stderr)

    return tell


if __name__ == "__main__":
    main()

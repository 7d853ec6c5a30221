"""results: what became of the mutants of each module, and why some survive.

    results.json   "modules": a member a module
        area, mutants, killed, timeouts, survived    that add up
        source       digest of the module's text: the results are those of this text
        seconds      that its mutants took
        survivors    each with kind, where, was, now, and why: written by hand, kept from run to run

`why` begins with one word and a colon:

    equivalent   no input tells the mutant from the module
    impossible   only what other checks keep away would tell
    speed        the same result, sooner or later
    message      the wording of a message, or a name in it
    size         only an input too large for a test would tell
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from kvq_cli.digest import plain, text
from mutating.mutants import Mutant
from mutating.scope import AREAS, area_of, file_of

FILE: Final = Path(__file__).parent / "results.json"
KINDS: Final = {
    each.split(maxsplit=1)[0]: each.split(maxsplit=1)[1]
    for each in map(str.strip, (__doc__ or "").partition("a colon:")[2].splitlines())
    if each
}


def load() -> dict[str, dict[str, Any]]:
    modules: dict[str, dict[str, Any]] = json.loads(FILE.read_text("utf-8"))["modules"]
    return modules


def save(modules: dict[str, dict[str, Any]]) -> None:
    order = [module for area in AREAS.values() for module in area.modules]
    kept = {module: modules[module] for module in order if module in modules}
    FILE.write_text(json.dumps({"modules": kept}, indent=1, ensure_ascii=False) + "\n", "utf-8")


def source_digest(module: str) -> str:
    return text(plain(file_of(module).read_bytes()))


def result(
    module: str,
    mutants: Sequence[Mutant],
    outcomes: Sequence[tuple[str, str]],
    seconds: float,
    before: dict[str, Any],
) -> dict[str, Any]:
    """The member of a module; the reasons of survivors are those that were written before."""
    reasons: dict[tuple[str, str, str], list[str]] = {}
    for each in before.get("survivors", ()):
        reasons.setdefault((each["where"], each["was"], each["now"]), []).append(each["why"])
    counts = Counter(outcome for outcome, _ in outcomes)
    survivors = []
    for mutant, (outcome, _) in zip(mutants, outcomes, strict=True):
        if outcome == "survived":
            why = reasons.get(mutant.key) or [""]
            survivors.append(
                {
                    "kind": mutant.kind,
                    "where": mutant.where,
                    "was": mutant.was,
                    "now": mutant.now,
                    "why": why.pop(0) if len(why) > 1 else why[0],
                }
            )
    return {
        "area": area_of(module),
        "source": source_digest(module),
        "mutants": len(mutants),
        "killed": counts["killed"],
        "timeouts": counts["timeout"],
        "survived": counts["survived"],
        "seconds": round(seconds, 1),
        "survivors": survivors,
    }


def joined(before: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """A module's result, where some of the survivors were tried again with more tests."""
    counts = {name: before[name] + again[name] for name in ("timeouts", "seconds")}
    counts["killed"] = before["mutants"] - again["survived"] - counts["timeouts"]
    return before | counts | {"survived": again["survived"], "survivors": again["survivors"]}


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The sums of modules; `percent` is the part of mutants that tests notice."""
    names = ("mutants", "killed", "timeouts", "survived", "seconds")
    sums = {name: sum(row[name] for row in rows) for name in names}
    noticed = sums["killed"] + sums["timeouts"]
    whys = Counter(each["why"].partition(":")[0] for row in rows for each in row["survivors"])
    return {**sums, "percent": 100 * noticed / (sums["mutants"] or 1), "whys": whys}

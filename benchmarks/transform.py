"""transform: the codec transform next to the others: bits an element, and what attention loses.

    python -m benchmarks.transform [CAPTURE... --calibration FILE...] [--model NAME]
                                   [--ablation | --speed] [--result [FILE]]

Captures have queries beside them. Without any, those of `make calibration` are measured, in
build/e2e/measured, with its calibrations. A file of transform refers to its calibration, and is
measured a second time with the calibration's table in it. Then, for some codecs, the coarsest
step is searched at which transform is as good: total variation no larger, cosine no smaller.
Results, merged into benchmarks/transform.json:

    {"schema": "kvq_transform_results_v1",
     "captures": [{"made", "capture", "calibrations": {NAME: C, …}, "rows": [R, …],
                   "verdicts": [V, …]}, …],
     "ablation": {"made", …},               see transform_ablation.py
     "speed": {"made", "rows": [T, …]}}     see transform_speed.py and result.py

C   digest, tokens (of the texts), file_bytes, table_bytes (of what a decoder needs)
R   codec, calibration and step (of transform), bits (an element of the whole file), ratio (16 to
    them), embedded_bits and embedded_ratio (the same with the table in the file), tv and cosine
    (of attention, means over heads)
V   against, calibration, step, bits, ratio, embedded_ratio, tv, cosine; factor: how many times
    smaller than the codec it is held against
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks import machine, transform_ablation, transform_speed, transform_tables
from benchmarks.make_e2e import WEIGHTS
from benchmarks.points import (
    Case,
    Point,
    Steps,
    builtin,
    measure,
    plain,
    share_of_referring,
    transform,
)
from benchmarks.result import compact
from kvq_cli.profile import Profile
from kvq_cli.steps.kvqcal import load_kvqcal

PATH: Final = Path(__file__).with_name("transform.json")
SCHEMA: Final = "kvq_transform_results_v1"
PARTS: Final = ("ablation", "speed")
MEASURED: Final = WEIGHTS / "measured"
CALIBRATIONS: Final = WEIGHTS / "calibration"
STEPS: Final = (1400, 2000, 2800, 4000, 5600, 8000)
PLAIN: Final = (4, 3, 2)
BUILTIN: Final = (
    "turboquant-4bit", "turboquant-3bit", "turboquant-2bit", "int8", "fp8-e4m3", "int4",
    "int4-g64", "kivi-2bit", "fibquant-3bit", "fibquant-2bit", "fibquant-1bit",
)  # fmt: skip
AGAINST: Final = ("plain 4 bits", "turboquant-4bit", "plain 2 bits")


def references() -> dict[str, Profile]:
    found = {f"plain {bits} bits": plain(bits) for bits in PLAIN}
    return found | {name: builtin(name) for name in BUILTIN}


def row(codec: str, point: Point, **more: object) -> dict[str, Any]:
    """A row of results."""
    found = {"codec": codec, **more, "bits": round(point.bits, 4), "ratio": ratio(point.bits)}
    return found | {"tv": point.tv, "cosine": point.cosine}


def transformed(case: Case, path: Path, steps: Steps, step: int, **more: object) -> dict[str, Any]:
    """A row of transform, which has both sizes."""
    bits = steps(step).bits / share_of_referring(case, transform(step), path)
    both = {"embedded_bits": round(bits, 4), "embedded_ratio": ratio(bits)}
    found = row("transform", steps(step), **more, calibration=path.stem, step=step)
    return {**found, **both}


def ratio(bits: float) -> float:
    return round(16 / bits, 3)


def measured(case: Case, calibrations: Sequence[Path]) -> dict[str, Any]:
    """All rows of a capture."""
    found: dict[str, Any] = {
        "capture": case.capture.stem,
        "calibrations": {path.stem: told(path) for path in calibrations},
    }
    points = {}
    rows, verdicts = [], []
    for name, profile in references().items():
        points[name] = measure(case, profile)
        rows.append(shown(row(name, points[name])))
    for path in calibrations:
        steps = Steps(lambda step, path=path: measure(case, transform(step), path))
        rows += [shown(transformed(case, path, steps, step)) for step in STEPS]
        for against, step in judged(steps, points):
            each = transformed(case, path, steps, step, against=against)
            factor = points[against].bits / steps(step).bits
            verdicts.append(shown(each | {"factor": round(factor, 3)}))
    return found | {"rows": rows, "verdicts": verdicts}


def judged(steps: Steps, points: Mapping[str, Point]) -> Iterator[tuple[str, int]]:
    """The coarsest step as good as each codec that is compared with."""
    for against in AGAINST:
        step = steps.coarsest(points[against])
        if step is not None:
            yield against, step


def told(path: Path) -> dict[str, Any]:
    loaded = load_kvqcal(path)
    return {"digest": loaded.digest, "tokens": int(loaded.metadata["tokens"]),
            "file_bytes": path.stat().st_size, "table_bytes": len(loaded.table)}  # fmt: skip


def shown(each: dict[str, Any]) -> dict[str, Any]:
    print(", ".join(f"{name} {value}" for name, value in each.items()), flush=True)
    return each


def merge(path: Path, *, capture: Mapping[str, Any] | None = None, **parts: Any) -> None:
    """Put a capture in place of the one of its name, and parts in place of theirs."""
    held = json.loads(path.read_text("utf-8")) if path.exists() else {}
    captures = {each["capture"]: each for each in held.get("captures", [])}
    if capture is not None:
        captures[capture["capture"]] = dict(capture)
    found = {"schema": SCHEMA, "captures": list(captures.values())}
    kept = {name: {**held, **parts}[name] for name in PARTS if name in {**held, **parts}}
    path.write_text(compact(found | kept), "utf-8")


def cases(options: argparse.Namespace) -> Iterator[tuple[Case, list[Path]]]:
    """Captures, each with its calibrations."""
    if options.capture:
        yield from ((Case(path), options.calibration) for path in options.capture)
        return
    for path in sorted(MEASURED.glob("*-*.safetensors")):
        model = path.stem.partition("-")[0]
        if not path.name.endswith(".query.safetensors") and options.model in (None, model):
            yield Case(path), sorted(CALIBRATIONS.glob(f"{model}-*.kvqcal"), key=_layers)


def _layers(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.transform",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("capture", nargs="*", type=Path)
    parser.add_argument("--calibration", action="append", type=Path, default=[])
    parser.add_argument("--model", help="of make calibration's, only this one")
    parser.add_argument("--ablation", action="store_true", help="what each part is worth")
    parser.add_argument("--speed", action="store_true", help="of the codec, on one thread")
    parser.add_argument("--rounds", type=int, default=5, help="of speed")
    parser.add_argument("--part", action="append", help="of the ablation, only this one")
    parser.add_argument("--result", nargs="?", type=Path, const=PATH, metavar="FILE")
    return parser.parse_args()


def _command(words: Sequence[str]) -> str:
    """As it was called, without folders: they are no part of the result."""
    return " ".join(["python -m benchmarks.transform", *(Path(word).name for word in words)])


def main() -> None:
    machine.steady()
    options = parsed()
    made = machine.made(_command(sys.argv[1:]))
    found: dict[str, Any]
    if options.speed:
        machine.settle()
        found = {"made": made, "rows": list(transform_speed.measure(options.rounds))}
        _told(options, transform_tables.speed(found), speed=found)
    elif options.ablation:
        found = {}
        for found in transform_ablation.measured(CALIBRATIONS, MEASURED, options.part):
            _told(options, "", ablation={"made": made, **found})
        print(transform_tables.ablation(found), flush=True)
    else:
        for case, calibrations in cases(options):
            print(f"\n{case.capture.stem}", flush=True)
            found = {"made": made, **measured(case, calibrations)}
            text = f"{transform_tables.rows(found)}\n{transform_tables.verdicts(found)}"
            _told(options, text, capture=found)


def _told(options: argparse.Namespace, text: str, **parts: Any) -> None:
    if text:
        print(f"\n{text}", flush=True)
    if options.result:
        merge(options.result, **parts)


if __name__ == "__main__":
    main()

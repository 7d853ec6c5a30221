"""transform_ablation: what each part of the codec transform is worth.

Measured are the prose and the code that SmolLM2 read, by calibrations that differ from the one
of all texts, of 5 layers a group, in one thing. Each variant has its figures at one step, and the
bits at which it is as good as that calibration at that step: total variation no larger, cosine
no smaller. Results are

    {"base": NAME, "step": N, "rows": [R, …]}

R   part, variant, capture; bits, tv and cosine at the step; equal_bits (null where no step is as
    good); tokens of calibration and dimensions of the largest group
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.calibration_texts import PROSE
from benchmarks.points import Case, Point, Steps, measure, transform
from kvq_cli import pipeline
from kvq_cli.steps.kvqcal import load_kvqcal
from kvq_cli.steps.transformed import Setting

MODEL: Final = "smollm2"
STEP: Final = 2800
LAYERS: Final = 5
FEW: Final = ("moby_a", "sotu_1920", "py_argparse", "readme")
BOTH: Final = ("prose", "code")


@dataclass(frozen=True)
class Variant:
    """One thing that is different."""

    part: str
    name: str
    setting: Setting = Setting(layers=LAYERS)  # noqa: RUF009 - nobody changes one
    texts: tuple[str, ...] | None = None  # None: all
    told: Mapping[str, str] = field(default_factory=dict)  # what captures say instead
    first: int = 4  # tokens that stay raw
    captures: tuple[str, ...] = ("prose",)


BASE: Final = Variant("as it is", "5 layers a group", captures=BOTH)
VARIANTS: Final = (
    BASE,
    Variant("layers of a group", "1", Setting(layers=1), captures=BOTH),
    Variant("layers of a group", "10", Setting(layers=10), captures=BOTH),
    Variant("rotary positions", "left in the keys", told={"rope_state": "none"}),
    Variant("errors count by", "the capture's own keys", Setting("self", LAYERS)),
    Variant("errors count by", "the variance of a head", Setting("variance", LAYERS)),
    Variant("first tokens raw", "0", first=0),
    Variant("first tokens raw", "1", first=1),
    Variant("first tokens raw", "16", first=16),
    Variant("texts of calibration", "1", texts=FEW[:1], captures=BOTH),
    Variant("texts of calibration", "4", texts=FEW, captures=BOTH),
    Variant("texts of calibration", f"{len(PROSE)}, prose alone", texts=PROSE, captures=BOTH),
)


def measured(
    calibrations: Path, captures: Path, parts: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """What is known after each variant; `calibrations` is the folder of make_calibration."""
    cases = {name: Case(captures / f"{MODEL}-{name}.safetensors") for name in BOTH}
    wanted = [each for each in VARIANTS if each is BASE or not parts or each.part in parts]
    goals: dict[str, Point] = {}
    rows: list[dict[str, Any]] = []
    for variant in wanted:
        with tempfile.TemporaryDirectory() as folder:
            path = ready(variant, calibrations) or calibrated(
                variant, calibrations / MODEL, Path(folder)
            )
            for row in _rows(variant, path, cases, goals):
                print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
                rows.append(row)
        yield {"base": BASE.name, "step": STEP, "rows": rows}


def ready(variant: Variant, calibrations: Path) -> Path | None:
    """The calibration that make_calibration made, where it is the variant's."""
    path = calibrations / f"{MODEL}-{variant.setting.layers}.kvqcal"
    plain = variant.setting == Setting(layers=variant.setting.layers)
    usable = plain and variant.texts is None and not variant.told and path.exists()
    return path if usable else None


def calibrated(variant: Variant, captures: Path, folder: Path) -> Path:
    """The variant's calibration."""
    files = sorted(
        path
        for path in captures.glob("*.safetensors")
        if not path.name.endswith(".query.safetensors")
        and (variant.texts is None or path.stem in variant.texts)
    )
    if variant.told:
        files = [retold(path, folder, variant.told) for path in files]
    out = folder / "a.kvqcal"
    pipeline.calibrate_transform(files, out, setting=variant.setting, threads=1)
    return out


def retold(path: Path, folder: Path, told: Mapping[str, str]) -> Path:
    """A copy of a capture, and of its queries, that says something else of itself."""
    for each in (path, Case(path).queries):
        with each.open("rb") as source, (folder / each.name).open("wb") as copy:
            size = int.from_bytes(source.read(8), "little")
            header = json.loads(source.read(size))
            header["__metadata__"] |= told
            raw = json.dumps(header).encode()
            raw += b" " * (-len(raw) % 8)
            copy.write(len(raw).to_bytes(8, "little") + raw)
            shutil.copyfileobj(source, copy)
    return folder / path.name


def _rows(
    variant: Variant, path: Path, cases: dict[str, Case], goals: dict[str, Point]
) -> Iterator[dict[str, Any]]:
    loaded = load_kvqcal(path)
    widest = max(group.dimensions for group in loaded.basis.groups)
    for name in variant.captures:
        case = cases[name]
        steps = Steps(
            lambda step, case=case: measure(case, transform(step, first=variant.first), path)
        )
        found = steps(STEP)
        goal = goals.setdefault(name, found)
        equal = STEP if found is goal else steps.coarsest(goal)
        yield {
            "part": variant.part, "variant": variant.name, "capture": case.capture.stem,
            "tokens": int(loaded.metadata["tokens"]), "dimensions": widest,
            "bits": round(found.bits, 4), "tv": found.tv, "cosine": found.cosine,
            "equal_bits": None if equal is None else round(steps(equal).bits, 4),
        }  # fmt: skip

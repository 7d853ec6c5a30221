"""make_calibration: captures of models reading other texts, and calibrations made of them.

    python -m benchmarks.make_calibration [--model smollm2|qwen|minilm]... [--layers N]...
                                          in the environment of make_e2e: `make calibration`

    build/e2e/calibration/MODEL/TEXT.safetensors    keys and values in F16, queries beside them
    build/e2e/calibration/MODEL-N.kvqcal            of groups of N layers, by `kvq calibrate`
    build/e2e/measured/MODEL-TEXT.safetensors       of the texts that are measured: prose, code

Captures that are there are kept. Texts are those of calibration_texts.py, each the first 1,536
tokens for SmolLM2, 1,024 for Qwen, five times 512 for MiniLM. Groups are of 1 layer and, better
where there are as many tokens, of 5 and 10 for SmolLM2, 4 for Qwen, 6 for MiniLM.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

import capture_hf
import hf_model
from benchmarks import e2e, make_e2e, minilm
from benchmarks.calibration_texts import TEXTS
from kvq_cli import pipeline
from kvq_cli.steps.transformed import Setting

FOLDER: Final = make_e2e.WEIGHTS / "calibration"
MEASURED: Final = make_e2e.WEIGHTS / "measured"
QUERIES: Final = 256
ASKED: Final = 64  # queries of what is measured
WINDOWS: Final = 5  # of a text that MiniLM reads


@dataclass(frozen=True)
class Subject:
    """How much of each text a model reads, and into what groups its layers are put."""

    tokens: int
    layers: tuple[int, ...]


@dataclass(frozen=True)
class Job:
    """A text, and the files that its captures go into."""

    text: str
    read: Callable[[], str]
    files: list[Path]
    tokens: int
    queries: int


SUBJECTS: Final = {
    "smollm2": Subject(1536, (1, 5, 10)),
    "qwen": Subject(1024, (1, 4)),
    "minilm": Subject(minilm.TOKENS, (1, 6)),
}


def paths(name: str) -> dict[str, list[Path]]:
    """The captures of a model, by text."""
    count = WINDOWS if name == "minilm" else 1
    suffixes = [f"-{at}" for at in range(count)] if count > 1 else [""]
    return {text: [FOLDER / name / f"{text}{suffix}.safetensors" for suffix in suffixes]
            for text in TEXTS}  # fmt: skip


def jobs(name: str) -> Iterator[Job]:
    """All that a model reads: what it is calibrated on, then what is measured."""
    subject = SUBJECTS[name]
    for text, files in paths(name).items():
        yield Job(text, TEXTS[text], files, subject.tokens, QUERIES)
    for text, (path, tokens, _) in e2e.TEXTS.items():
        out = MEASURED / f"{name}-{text}.safetensors"
        yield Job(text, partial(path.read_text, "utf-8"), [out], min(tokens, subject.tokens), ASKED)


def captured(name: str) -> list[Path]:
    """The captures that a model is calibrated on; all that is missing is made, with one model."""
    for folder in (FOLDER / name, MEASURED):
        folder.mkdir(parents=True, exist_ok=True)
    missing = [job for job in jobs(name) if not job.files[0].exists()]
    if missing:
        for path in _encoder(missing) if name == "minilm" else _decoder(name, missing):
            print(f"captured {path.relative_to(make_e2e.WEIGHTS)}", flush=True)
    return sorted(path for files in paths(name).values() for path in files if path.exists())


def _decoder(name: str, missing: list[Job]) -> Iterator[Path]:
    weights = make_e2e.MODELS[name]
    model, tokenizer = hf_model.load(make_e2e.fetched(weights), "f32")
    for job in missing:
        ids: list[int] = tokenizer(job.read())["input_ids"][: job.tokens]
        layers, queries, told = capture_hf.capture(model, ids, queries=min(job.queries, len(ids)))
        told |= {"model": weights.model, "text": job.text}
        capture_hf.write(job.files[0], layers, queries, told)
        yield job.files[0]


def _encoder(missing: list[Job]) -> Iterator[Path]:
    model, tokenizer = minilm.load(minilm.fetched())
    for job in missing:
        windows = minilm.parts(tokenizer, job.read(), len(job.files))
        for path, ids in zip(job.files, windows, strict=False):
            minilm.write(path, minilm.capture(model, ids), job.text)
            yield path


def calibrated(name: str, layers: int, captures: list[Path]) -> dict[str, Any]:
    """`kvq calibrate CAPTURES --layers N -o MODEL-N.kvqcal`, and what it reports."""
    out = FOLDER / f"{name}-{layers}.kvqcal"
    report = pipeline.calibrate_transform(
        captures, out, setting=Setting(layers=layers), force=True, threads=1
    )
    return {"file": out.name, **report.to_json()}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make calibration", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--model", action="append", choices=tuple(SUBJECTS))
    parser.add_argument("--layers", action="append", type=int, help="of a group")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    options = parser.parse_args()
    options.model = options.model or ["smollm2"]
    return options


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    for name in options.model:
        captures = captured(name)
        for layers in options.layers or SUBJECTS[name].layers:
            told = calibrated(name, layers, captures)
            print(f"{told['file']}: {told['captures']} captures, {told['tokens']} tokens, "
                  f"{told['file_bytes']} bytes, {told['basis_bytes']} of them in a container, "
                  f"{told['digest']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

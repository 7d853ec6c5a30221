"""e2e: what the built-in profiles do to what a real model says. `make e2e` runs it.

    python -m benchmarks.e2e [--model smollm2|qwen] [--text prose|code] [--windows N]
                             [--profile NAME|FILE]... [--calibration FILE] [--result [FILE]]
                                                                   in the environment of make_e2e

A model reads a context in float32; sample_data/capture_hf.py writes its KV cache as F16. For each
profile kvq compresses the capture and restores it, sample_data/restore_hf.py makes it the model's
cache again, and the model reads the 257 true tokens that follow. What it says after 256 of them is
compared with what it says after the untouched F16 cache. That is one window; the next one starts
257 tokens later, so that no token is scored twice. Results, merged into benchmarks/e2e.json:

    {"schema": "kvq_e2e_v1",
     "runs": [{"made", "model", "about", "weights_sha256", "text", "text_about",
               "text_sha256", "tokens", "windows", "scored", "unstored", "rows": [R, …]}, …]}

Profiles of the codec transform are measured with a calibration alone: their containers refer to
it, and R has `embedded_ratio` too, of containers that hold its table.

R       profile, ratio (of whole containers, against F16), perplexity, change_percent (of
        perplexity, from the same tokens' losses), error_percent (its standard error), kl (mean
        over tokens of KL(untouched ‖ restored), in nats), top1 (share of tokens after which both
        would say the same)
tokens  of a context; scored are all that count, over all windows
unstored  perplexity and the rest of a model that reads everything at once, without a file
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import tempfile
import textwrap
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from transformers import DynamicCache

import kvq_cli
from benchmarks import machine
from benchmarks.make_e2e import MODELS, ROOT, fetched
from benchmarks.result import compact
from capture_hf import capture, write
from hf_model import forward, load
from kvq_cli.profile import Profile, builtin_names, load_profile
from kvq_cli.steps.bound import needs_transform
from restore_hf import losses, restore

PATH: Final = Path(__file__).with_name("e2e.json")
SCHEMA: Final = "kvq_e2e_v1"
SCORED: Final = 256
WINDOWS: Final = 4  # at most
TEXTS: Final = {  # name: file, tokens of context, what it is
    "prose": (
        ROOT / "sample_data" / "pride-and-prejudice.txt",
        512,
        "Pride and Prejudice, chapter 1",
    ),
    "code": (Path(textwrap.__file__), 1024, "textwrap.py of Python's library"),
}


def looked(found: Any, base: Any, ids: list[int]) -> dict[str, Any]:
    """Of each scored token: both losses, KL, and whether both say the same."""
    after, before = (torch.log_softmax(each[: len(ids) - 1].double(), -1) for each in (found, base))
    return {
        "loss": losses(found, ids),
        "untouched": losses(base, ids),
        "kl": (before.exp() * (before - after)).sum(-1),
        "top1": (before.argmax(-1) == after.argmax(-1)).double(),
    }


def figures(windows: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the tokens of all windows."""
    joined = {name: torch.cat([each[name] for each in windows]) for name in windows[0]}
    gain = joined["loss"] - joined["untouched"]
    return {
        "perplexity": math.exp(joined["loss"].mean()),
        "change_percent": 100 * math.expm1(gain.mean()),
        "error_percent": 100 * float(gain.std()) / math.sqrt(len(gain)),
        "kl": float(joined["kl"].mean()),
        "top1": float(joined["top1"].mean()),
    }


class Run:
    """One model and one text, window after window."""

    def __init__(self, model: Any, profiles: list[str], calibration: Path | None = None) -> None:
        self.model, self.profiles, self.calibration = model, profiles, calibration
        self.unstored: list[dict[str, Any]] = []
        self.looks: dict[str, list[dict[str, Any]]] = defaultdict(list)
        # Of the source, of containers, and of containers with the calibration's table.
        self.bytes: dict[str, list[int]] = {name: [0, 0, 0] for name in profiles}

    def window(self, folder: Path, prompt: list[int], following: list[int]) -> None:
        source, box, back = (folder / name for name in ("a.safetensors", "b.kvq", "c.safetensors"))
        layers, _, told = capture(self.model, prompt)
        write(source, layers, None, told)
        base = forward(self.model, following, restore(self.model, source))
        empty = DynamicCache(config=self.model.config)
        whole = forward(self.model, prompt + following, empty)[len(prompt) :]
        self.unstored.append(looked(whole, base, following))
        for name in self.profiles:
            for place, size in enumerate(self.there_and_back(name, source, box, back)):
                self.bytes[name][place] += size
            found = forward(self.model, following, restore(self.model, back))
            self.looks[name].append(looked(found, base, following))

    def there_and_back(self, name: str, source: Path, box: Path, back: Path) -> tuple[int, ...]:
        """Sizes of the capture, its container, and of one with all that restoring it takes."""
        refers = is_transform(name)
        terms = {"calibration": self.calibration} if refers else {}
        whole = kvq_cli.compress(source, box, profiles=[name], force=True, **terms)
        found = whole
        if refers:
            found = kvq_cli.compress(source, box, profiles=[name], force=True, refer=True, **terms)
        kvq_cli.decompress(box, back, force=True, **terms)
        return found.source_bytes, found.file_bytes, whole.file_bytes

    def rows(self) -> list[dict[str, Any]]:
        return [self._row(name) for name in self.profiles]

    def _row(self, name: str) -> dict[str, Any]:
        source, file, whole = self.bytes[name]
        row: dict[str, Any] = {"profile": Path(name).stem, "ratio": source / file}
        if is_transform(name):
            row["embedded_ratio"] = source / whole
        return row | figures(self.looks[name])


def is_transform(name: str) -> bool:
    """Whether a profile takes a calibration of the codec transform."""
    profile = load_profile(name)
    return isinstance(profile, Profile) and needs_transform(profile)


def chosen(options: argparse.Namespace) -> list[str]:
    """The profiles that are named, or the built-in ones that can be measured."""
    every = options.profile or list(builtin_names())
    return [name for name in every
            if options.profile or options.calibration or not is_transform(name)]  # fmt: skip


def measured(model: Any, tokenizer: Any, text: str, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model and text."""
    path, tokens, about = TEXTS[text]
    ids = tokenizer(path.read_text("utf-8"))["input_ids"]
    step = SCORED + 1
    windows = min(options.windows, (len(ids) - tokens) // step)
    if windows < 1:
        raise SystemExit(f"e2e: {path.name} has {len(ids)} tokens")
    run = Run(model, chosen(options), options.calibration)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(windows):
            print(f"{text}, window {number + 1} of {windows}", flush=True)
            part = ids[number * step :][: tokens + step]
            run.window(Path(folder), part[:tokens], part[tokens:])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"text": text, "text_about": about, "text_sha256": digest, "tokens": tokens,
            "windows": windows, "scored": windows * SCORED,
            "unstored": figures(run.unstored), "rows": run.rows()}  # fmt: skip


def show(run: dict[str, Any]) -> None:
    print(f"{run['model']}, {run['text']}, context {run['tokens']}, scored {run['scored']}")
    for row in [{"profile": "without a file", "ratio": 1.0, **run["unstored"]}, *run["rows"]]:
        name, *rest = (value for key, value in row.items() if key != "embedded_ratio")
        print(f"{name:<20}", "".join(f"{each:>12.5g}" for each in rest), flush=True)


def made() -> dict[str, Any]:
    """As it was called, without folders: they are no part of the result."""
    words = " ".join(Path(word).name for word in sys.argv[1:])
    told = machine.made(f'make e2e E2E="{words}"')
    told["packages"] |= {name: version(name) for name in ("torch", "transformers", "gguf")}
    return told


def merge(path: Path, runs: list[dict[str, Any]]) -> None:
    """Put these runs in place of the ones of the same model and text."""
    known = json.loads(path.read_text("utf-8"))["runs"] if path.exists() else []
    named = {(run["model"], run["text"]): run for run in [*known, *runs]}
    order = [weights.model for weights in MODELS.values()]
    ordered = sorted(named.values(), key=lambda run: order.index(run["model"]))
    path.write_text(compact({"schema": SCHEMA, "runs": ordered}), "utf-8")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make e2e", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", choices=tuple(MODELS))
    parser.add_argument("--text", action="append", choices=tuple(TEXTS))
    parser.add_argument("--profile", action="append", metavar="NAME|FILE")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="for the codec transform")
    parser.add_argument("--windows", type=int, default=WINDOWS, help="at most so many a text")
    parser.add_argument("--result", nargs="?", type=Path, const=PATH, metavar="FILE")
    options = parser.parse_args()
    options.model = options.model or ["smollm2"]
    return options


def main() -> None:
    options = parsed()
    for name in options.model:
        weights = MODELS[name]
        model, tokenizer = load(fetched(weights))
        for text in options.text or TEXTS:
            run = {"made": made(), "model": weights.model, "about": weights.about,
                   "weights_sha256": weights.sha256}  # fmt: skip
            run |= measured(model, tokenizer, text, options)
            show(run)
            if options.result:
                merge(options.result, [run])


if __name__ == "__main__":
    main()

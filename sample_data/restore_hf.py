"""restore_hf: goes on from a capture, as a transformers model does from its own KV cache.

    pip install 'kvq-cli[hf]'
    python sample_data/restore_hf.py MODEL CAPTURE.safetensors [--tokens FILE.tokens.json]
        [--generate 24]

CAPTURE is what capture_hf.py wrote, or what kvq restored of it, in either layout. Its keys and
values become a DynamicCache; keys without rotary positions are turned first. Printed are the
perplexity of the true tokens that follow (the first of them is only read, the others are scored),
and what the model says by itself after the first. The file of tokens lies beside the capture
unless it is named.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import DynamicCache

from hf_model import forward, load, text_config, turned

PER_LAYER = re.compile(r"layers\.(\d+)\.(key|value)")


def read(path: Path) -> tuple[list[tuple[Any, Any]], dict[str, str]]:
    """Keys and values of each layer, (B, H, T, D), and the metadata."""
    with safe_open(path, framework="pt") as file:
        told = file.metadata() or {}
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if "key" in found:
        whole = [found[role] if found[role].ndim == 5 else found[role][None]
                 for role in ("key", "value")]  # fmt: skip
        return list(zip(*(each.unbind(1) for each in whole), strict=True)), told
    numbers = sorted({int(match[1]) for match in map(PER_LAYER.fullmatch, found) if match})
    return [(found[f"layers.{n}.key"], found[f"layers.{n}.value"]) for n in numbers], told


def restore(model: Any, path: Path) -> Any:
    """The capture as a cache of this model.

    A layer with a sliding window holds the last tokens only; it is told how many there were.
    """
    layers, told = read(path)
    count = text_config(model).num_hidden_layers
    if len(layers) != count:
        raise SystemExit(f"restore_hf: {path}: {len(layers)} layers, the model has {count}")
    tokens = int(told.get("tokens", max(key.shape[2] for key, _ in layers)))
    cache = DynamicCache(config=model.config)
    for number, pair in enumerate(layers):
        key, value = (each.to(model.dtype) for each in pair)
        if key.shape[2] != tokens and not cache.layers[number].is_sliding:
            raise SystemExit(f"restore_hf: {path}: layer {number} has not all {tokens} tokens")
        if told.get("rope_state") in ("pre", "pre_rope"):
            key = turned(model, number, key, tokens - key.shape[2])
        cache.update(key, value, number)
        if hasattr(cache.layers[number], "cumulative_length"):
            cache.layers[number].cumulative_length = tokens
    return cache


def losses(logits: Any, ids: list[int]) -> Any:
    """-log p of each token but the first, from the logits after the one before it."""
    logs = torch.log_softmax(logits[: len(ids) - 1].double(), dim=-1)
    return -logs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def greedy(model: Any, cache: Any, first: int, count: int) -> list[int]:
    """What the model says after `first`."""
    said = [first]
    for _ in range(count):
        said.append(int(forward(model, said[-1:], cache)[-1].argmax()))
    return said[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder of transformers, or a GGUF file")
    parser.add_argument("capture", type=Path)
    parser.add_argument("--tokens", type=Path, help="CAPTURE's name with .tokens.json without")
    parser.add_argument("--generate", type=int, default=24, help="tokens to say")
    options = parser.parse_args()
    side = options.tokens or options.capture.with_suffix(".tokens.json")
    ids = json.loads(side.read_text("utf-8"))["continuation_ids"]
    if not ids:
        raise SystemExit(f"restore_hf: {side} has no continuation_ids")
    model, tokenizer = load(options.model)
    if len(ids) > 1:
        found = losses(forward(model, ids, restore(model, options.capture)), ids)
        print(f"perplexity of {len(found)} tokens: {math.exp(found.mean()):.4f}")
    said = greedy(model, restore(model, options.capture), ids[0], options.generate)
    print(tokenizer.decode(ids[:1] + said))


if __name__ == "__main__":
    main()

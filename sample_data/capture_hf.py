"""capture_hf: writes the KV cache of a transformers model reading a text, as kvq takes it.

    pip install 'kvq-cli[hf]'
    python sample_data/capture_hf.py MODEL OUT.safetensors --text FILE [--tokens 512]
        [--following 257] [--queries 16] [--dtype f16|bf16|f32] [--layout canonical|hf]
        [--pre-rope] [--model-name NAME] [--meta KEY=TEXT]

MODEL is a folder of transformers or a GGUF file. Written are

    OUT.safetensors           key and value [1, L, H, T, D], or layers.N.key and layers.N.value
    OUT.query.safetensors     query [1, L, Hq, n, D] of the last n positions, and positions
    OUT.tokens.json           prompt_ids, and continuation_ids: the true tokens that follow

with the metadata of formats/capture.md. `--dtype bf16` runs the model in bf16, the others in f32.
Queries are those that attention gets; an attention function of our own, registered with
transformers, sees them pass. `--pre-rope` takes keys and queries as they come to the model's
rotary function: after projection and norm, before positions. Layers with a sliding window keep
only their last tokens in a cache, so such a cache takes `--layout hf`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache

from hf_model import DTYPES, TURN, code_of, facts, forward, load, text_config

OURS = "kvq_recorder"  # the name of our attention function


class Recorder:
    """Keys, values and queries of every layer, as they pass in one forward run."""

    def __init__(self, inner: Callable[..., Any], *, pre_rope: bool) -> None:
        self.inner, self.pre_rope = inner, pre_rope
        self.layers: dict[int, tuple[Any, Any, Any]] = {}  # query, key, value
        self.scales: set[float] = set()
        self.before: tuple[Any, Any] | None = None  # query and key without positions

    def attend(self, module: Any, query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        """The model's own attention; what comes in is kept."""
        if self.pre_rope and self.before is None:
            raise SystemExit(f"capture_hf: layer {module.layer_idx} has no rotary positions")
        seen, self.before = self.before or (query, key), None
        self.layers[module.layer_idx] = (*seen, value)
        self.scales.add(float(more.get("scaling") or query.shape[-1] ** -0.5))
        return self.inner(module, query, key, value, *rest, **more)

    def turning(self, turn: Callable[..., Any]) -> Callable[..., Any]:
        """The model's rotary function; what comes in is kept for the attention that follows."""

        def kept(query: Any, key: Any, *rest: Any, **more: Any) -> Any:
            self.before = (query, key)
            return turn(query, key, *rest, **more)

        return kept


@contextmanager
def recording(model: Any, *, pre_rope: bool) -> Iterator[Recorder]:
    """Our attention function in place of the model's, which it calls."""
    usual, code = model.config._attn_implementation, code_of(model)  # noqa: SLF001 - no other name
    inner = AttentionInterface().get_interface(
        usual, getattr(code, "eager_attention_forward", None)
    )
    recorder = Recorder(inner, pre_rope=pre_rope)
    AttentionInterface.register(OURS, recorder.attend)
    AttentionMaskInterface.register(OURS, AttentionMaskInterface()[usual])
    with ExitStack() as stack:
        if pre_rope:
            turn = recorder.turning(getattr(code, TURN))
            stack.enter_context(mock.patch.object(code, TURN, turn))
        stack.callback(model.set_attn_implementation, usual)
        model.set_attn_implementation(OURS)
        yield recorder


def capture(model: Any, ids: list[int], *, queries: int = 0, pre_rope: bool = False,
            dtype: str = "f16") -> tuple[list[tuple[Any, Any]], Any, dict[str, str]]:  # fmt: skip
    """Keys and values of each layer, (B, H, T, D); queries (B, L, Hq, n, D); metadata.

    Of a layer as many tokens are taken as transformers' cache keeps of it.
    """
    told = facts(model)
    if pre_rope and told["rope_state"] == "none":
        raise SystemExit("capture_hf: --pre-rope: the model has no rotary positions")
    cache = DynamicCache(config=model.config)
    with recording(model, pre_rope=pre_rope) as recorder:
        forward(model, ids, cache)
    layers, asked = [], []
    for number in range(text_config(model).num_hidden_layers):
        query, key, value = recorder.layers[number]
        kept = cache.layers[number].keys.shape[2]
        pair = (key[:, :, -kept:], value[:, :, -kept:])
        layers.append(tuple(each.to(DTYPES[dtype]) for each in pair))
        asked.append(query[:, :, len(ids) - queries :].to(DTYPES[dtype]))
    if len(recorder.scales) == 1:
        told["attention_scale"] = str(*recorder.scales)
    told |= {"rope_state": "pre"} if pre_rope else {}
    told |= {"head_dim": str(layers[0][0].shape[-1]), "tokens": str(len(ids)), "dtype": dtype}
    return layers, torch.stack(asked, dim=1) if queries else None, told


def tensors(layers: list[tuple[Any, Any]], layout: str) -> tuple[dict[str, Any], str]:
    """Tensors by name, and how they lie."""
    if layout == "hf":
        named = {f"layers.{number}.{role}": tensor.contiguous()
                 for number, pair in enumerate(layers)
                 for role, tensor in zip(("key", "value"), pair, strict=True)}  # fmt: skip
        return named, "per layer: batch,kv_heads,tokens,head_dim"
    keys, values = zip(*layers, strict=True)
    if any(len({tensor.shape for tensor in role}) > 1 for role in (keys, values)):
        raise SystemExit("capture_hf: layers differ in tokens, heads or channels: --layout hf")
    named = {"key": torch.stack(keys, dim=1), "value": torch.stack(values, dim=1)}
    return named, "batch,layers,kv_heads,tokens,head_dim"


def write(out: Path, layers: list[tuple[Any, Any]], queries: Any, told: dict[str, str],
          layout: str = "canonical") -> None:  # fmt: skip
    """The capture and, where there are queries, their file."""
    named, lies = tensors(layers, layout)
    tokens = int(told["tokens"])
    if queries is not None and all(key.shape[2] < tokens for key, _ in layers):
        # kvq takes the longest layer for the whole text: queries would look past themselves.
        raise SystemExit("capture_hf: no layer keeps all tokens: --queries 0")
    save_file(named, out, {**told, "layout": lies})
    if queries is not None:
        positions = torch.arange(tokens - queries.shape[3], tokens)
        paired = {"pairs_with": out.name, "causal": "true: position p attends to keys 0..p"}
        lies = "batch,layers,query_heads,n_q,head_dim"
        save_file({"query": queries, "positions": positions},
                  out.with_suffix(".query.safetensors"),
                  {**told, **paired, "layout": lies})  # fmt: skip


def key_and_text(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=TEXT")
    return key, value


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="a folder of transformers, or a GGUF file")
    parser.add_argument("out", type=Path)
    parser.add_argument("--text", type=Path, required=True, help="UTF-8")
    parser.add_argument("--tokens", type=int, default=512, help="of the context")
    parser.add_argument("--following", type=int, default=257, help="true tokens told after it")
    parser.add_argument("--queries", type=int, default=16, help="of the last positions; 0: none")
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="f16")
    parser.add_argument("--layout", choices=("canonical", "hf"), default="canonical")
    parser.add_argument("--pre-rope", action="store_true", help="keys and queries before positions")
    parser.add_argument("--model-name", help="what the metadata call it; MODEL's own name without")
    parser.add_argument(
        "--meta", type=key_and_text, action="append", default=[], metavar="KEY=TEXT"
    )
    return parser.parse_args()


def main() -> None:
    options = parsed()
    compute = "bf16" if options.dtype == "bf16" else "f32"
    model, tokenizer = load(options.model, compute)
    ids = tokenizer(options.text.read_text("utf-8"))["input_ids"]
    prompt, following = ids[: options.tokens], ids[options.tokens :][: options.following]
    if len(prompt) < options.tokens or not 0 <= options.queries <= options.tokens:
        raise SystemExit(f"capture_hf: the text has {len(ids)} tokens")
    layers, queries, told = capture(
        model, prompt, queries=options.queries, pre_rope=options.pre_rope, dtype=options.dtype
    )
    name = options.model_name or options.model.resolve().name
    told |= {"model": name, "compute_dtype": compute, "text": options.text.name}
    write(options.out, layers, queries, told | dict(options.meta), options.layout)
    side = {"model": name, "text": options.text.name}
    side |= {"prompt_ids": prompt, "continuation_ids": following}
    options.out.with_suffix(".tokens.json").write_text(json.dumps(side) + "\n", "utf-8")


if __name__ == "__main__":
    main()

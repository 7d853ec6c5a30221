"""hf_model: what capture_hf.py and restore_hf.py need to know of a transformers model.

A model is a folder as transformers saves it, or a single GGUF file, and is read from disk only.
Nothing here knows an architecture by name: head counts and rotary bases come from the config, and
keys are turned by the function that the model's own file turns them with.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

DTYPES: Final = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}
STYLES: Final = {(-2.0, -3.0, 0.0, 1.0): "half-rotated", (-1.0, 0.0, -3.0, 2.0): "interleaved"}
TURN: Final = "apply_rotary_pos_emb"  # what transformers' model files call it


def load(path: Path, dtype: str = "f32") -> tuple[Any, Any]:
    """Model and tokenizer."""
    logging.disable_progress_bar()
    found = {"gguf_file": path.name} if path.is_file() else {}
    folder = str(path.parent if path.is_file() else path)
    offline = {"local_files_only": True, **found}
    tokenizer = AutoTokenizer.from_pretrained(folder, **offline)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=DTYPES[dtype], **offline)
    return model.eval(), tokenizer


def text_config(model: Any) -> Any:
    """The part of the config that is about text, where a model can do more."""
    return model.config.get_text_config()


def code_of(model: Any) -> ModuleType:
    """The module that holds the model's attention and rotation."""
    return sys.modules[type(model).__module__]


def rotary_of(model: Any) -> Any:
    """The module that computes cosines and sines, None in a model without rotary positions."""
    return getattr(model.base_model, "rotary_emb", None)


def forward(model: Any, ids: list[int], cache: Any) -> Any:
    """Logits (tokens, vocabulary) as float32; the cache grows by the tokens.

    Newer releases of transformers call the argument `cache`, older ones `past_key_values`.
    """
    names = inspect.signature(model.forward).parameters
    name = "cache" if "cache" in names else "past_key_values"
    with torch.inference_mode():
        found = model(torch.tensor([ids]), use_cache=True, **{name: cache})
    return found.logits[0].float()


def turned(model: Any, layer: int, keys: Any, first: int) -> Any:
    """Keys (B, H, T, D) that have no positions yet, with those from `first` on."""
    rotary = rotary_of(model)
    positions = torch.arange(first, first + keys.shape[2])[None]
    kinds = getattr(text_config(model), "layer_types", None)
    by_kind = "layer_type" in inspect.signature(type(rotary).forward).parameters
    angles = rotary(keys, positions, *([kinds[layer]] if by_kind and kinds else []))
    return getattr(code_of(model), TURN)(keys, keys, *angles)[1]


def facts(model: Any) -> dict[str, str]:
    """Metadata of a capture that follow from the model alone."""
    config = text_config(model)
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    grouped = "mqa" if kv_heads == 1 else "gqa"
    told = {
        "architecture": config.model_type,
        "attention_kind": "mha" if kv_heads == heads else grouped,
        "query_heads": str(heads),
        "kv_heads": str(kv_heads),
        "layers": str(config.num_hidden_layers),
        "rope_state": "none",
    }
    kinds = getattr(config, "layer_types", None) or []
    if len(set(kinds)) > 1:
        told["layer_types"] = json.dumps(kinds)
    if "sliding_attention" in kinds:
        told["sliding_window"] = str(config.sliding_window)
    if any(name.endswith("k_proj.bias") for name, _ in model.named_parameters()):
        told["qkv_bias"] = "true"
    return told | (rope_facts(model) if rotary_of(model) else {})


def rope_facts(model: Any) -> dict[str, str]:
    """Base, scaling and style of rotary positions: a number, or one for each type of layer."""
    rope = dict(text_config(model).rope_parameters)
    told = {"rope_state": "post"}
    if "rope_theta" in rope:
        told["rope_theta"] = str(rope["rope_theta"])
        kinds = [rope]
    else:
        kinds = [kind for kind in rope.values() if kind]
        bases = {name: kind["rope_theta"] for name, kind in rope.items() if kind}
        told["rope_theta"] = json.dumps(bases)
    plain = {"rope_type": "default", "partial_rotary_factor": 1.0}
    if any(plain.get(name) != value for kind in kinds
           for name, value in kind.items() if name != "rope_theta"):  # fmt: skip
        told["rope_scaling"] = json.dumps(rope)
    half = getattr(code_of(model), "rotate_half", None)
    if half:
        style = STYLES.get(tuple(half(torch.arange(4.0)).tolist()))
        told |= {"rope_style": style} if style else {}
    return told

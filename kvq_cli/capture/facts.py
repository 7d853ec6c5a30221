"""facts: what a capture's metadata says about the model that it came from.

Spec: formats/capture.md, section "Metadata".

Metadata is text that anybody wrote. A closed list of keys becomes the container's identity;
the shape contract takes three of them, by its own names, or None. A fact that is missing or
not understood is never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from kvq_cli.capture.header import shown
from kvq_cli.record import record

KINDS: Final = ("mha", "mqa", "gqa")
# The contract has no word for keys without RoPE: nothing was applied yet.
ROPE_STATES: Final = {
    "pre": "pre_rope",
    "pre_rope": "pre_rope",
    "none": "pre_rope",
    "post": "post_rope",
    "post_rope": "post_rope",
}
IDENTITY: Final = (
    "model",
    "model_revision",
    "architecture",
    "tokenizer",
    "tokenizer_revision",
    "engine",
    "engine_version",
    "cache_class",
    "compute_dtype",
    "attention_kind",
    "attention_scale",
    "query_heads",
    "rope_state",
    "rope_style",
    "rope_theta",
    "rope_scaling",
    "layer_types",
    "layer_indices",
    "source_layers",
    "sliding_window",
    "qkv_bias",
)
# What a user may tell of tensors whose shapes do not; none of it is identity.
HINTS: Final = ("kv_heads", "head_dim", "block_size")
MAX_VALUE: Final = 4096
COUNT: Final = re.compile(r"[1-9][0-9]{0,8}")
# A model named by its folder would put user and host names into every container.
LOCAL_PATH: Final = re.compile(r"[/~\\]|\.\.?[/\\]|[A-Za-z]:[/\\]|file:")
AXIS_WORDS: Final = {
    "batch": "B",
    "layers": "L",
    "kv_heads": "H",
    "heads": "H",
    "tokens": "T",
    "head_dim": "D",
}


@record
class Facts:
    """Members of a key's shape that no tensor shape tells."""

    attention_kind: str | None = None
    query_heads: int | None = None
    rope_state: str | None = None


def facts_of(metadata: Mapping[str, str]) -> tuple[Facts, list[str]]:
    """The facts, and a note for each that is there and not understood."""
    kind = metadata.get("attention_kind")
    heads = metadata.get("query_heads")
    rope = metadata.get("rope_state")
    facts = Facts(
        attention_kind=kind if kind in KINDS else None,
        query_heads=count_of(metadata, "query_heads"),
        rope_state=ROPE_STATES.get(rope or ""),
    )
    notes = [
        f'metadata {name} is "{shown(text)}", which is not understood and left out'
        for name, text, fact in (
            ("attention_kind", kind, facts.attention_kind),
            ("query_heads", heads, facts.query_heads),
            ("rope_state", rope, facts.rope_state),
        )
        if text and fact is None
    ]
    return facts, notes


def identity_of(metadata: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """The metadata that containers carry, and a note for each value that they must not."""
    identity, notes = {}, []
    for key in IDENTITY:
        text = metadata.get(key, "")
        if len(text) > MAX_VALUE:
            notes.append(f"metadata {key} has {len(text)} characters and is left out")
        elif LOCAL_PATH.match(text):
            notes.append(f"metadata {key} is a path on some machine and is left out")
        elif text:
            identity[key] = text
    return identity, notes


def count_of(metadata: Mapping[str, str], key: str) -> int | None:
    """A number from 1; None where there is none, or what is there is none."""
    text = metadata.get(key, "")
    return int(text) if COUNT.fullmatch(text) else None


def stated_axes(metadata: Mapping[str, str]) -> str | None:
    """The axes that `layout` spells out, such as "batch,kv_heads,tokens,head_dim"."""
    words = metadata.get("layout", "").removeprefix("per layer:").split(",")
    letters = [AXIS_WORDS.get(word.strip(), "") for word in words]
    return "".join(letters) if all(letters) else None


def axes_of(metadata: Mapping[str, str], usual: str, rank: int) -> str | None:
    """The usual axes, or the stated ones; None if they cannot be those of `rank` dimensions.

    B is left out where there is one dimension less. A capture that states axes which kvq
    cannot carry must not be read by the usual ones.
    """
    stated = stated_axes(metadata)
    axes = stated or (usual if rank == len(usual) else usual.replace("B", ""))
    fits = len(axes) == rank and sorted(axes.replace("B", "")) == sorted(usual.replace("B", ""))
    return axes if fits and axes.count("B") <= 1 and axes.endswith("D") else None
